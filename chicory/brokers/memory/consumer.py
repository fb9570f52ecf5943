"""One worker's hold on the queues of a memory broker."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from msgspec.structs import replace
from trio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from chicory.brokers.base import Delivery, Settlement
from chicory.brokers.memory.places import Places
from chicory.brokers.memory.store import Lease, Store, as_delivery
from chicory.clock import unix_now
from chicory.errors import LeaseLost
from chicory.links.executor import checkpoint
from chicory.types import WorkerInfo


class MemoryConsumer:
    """See Consumer.  Every method that may be cancelled waits first and acts last."""

    def __init__(self, store: Store, lease: Lease, queues: Mapping[str, Places], limit: int) -> None:
        self._store = store
        self._lease = lease
        self._queues = queues
        self._limit = limit

    @property
    def name(self) -> str:
        return self._lease.name

    @property
    def lease(self) -> float:
        return self._store.limits.lease

    def now(self) -> float:
        return unix_now()

    async def receive(self, limit: int) -> Sequence[Delivery]:
        await checkpoint_if_cancelled()
        while True:
            with self._store.lock:
                if self._lease.lost:
                    raise LeaseLost(f"consumer {self.name} was taken for dead; join again under another name")
                free = min(limit, self._limit - len(self._lease.held))
                taken = self._take(free)
                turn = None if taken else self._store.arrival.turn()
            if turn is None:
                # Shielded: a cancellation here would leave deliveries that nobody has seen.
                await cancel_shielded_checkpoint()
                return taken
            await self._store.arrival.heard(turn)

    def _take(self, free: int) -> list[Delivery]:
        return self._store.deliver(self._lease, self._queues, free)

    def reconnect(self) -> None:
        pass  # there is nothing between us and the broker

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery | None]:
        await checkpoint()
        with self._store.lock:
            held = [self._store.acknowledge(self._lease, delivery) for delivery in deliveries]
            self._store.wake()
        return [replace(one, acked=True) if ours else None for one, ours in zip(deliveries, held, strict=True)]

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        await checkpoint()
        with self._store.lock:
            held = [self._store.settle(self._lease, settlement) for settlement in settlements]
            self._store.wake()
        return held

    @property
    def cancelled(self) -> Collection[str]:
        return self._store.cancelled

    async def heard(self) -> Collection[str]:
        await checkpoint()
        while True:
            with self._store.lock:
                heard, self._lease.unheard = self._lease.unheard, set()
                turn = None if heard else self._store.cancellation.turn()
            if turn is None:
                return heard
            await self._store.cancellation.heard(turn)

    async def isolate(self, delivery: Delivery) -> None:
        await checkpoint()
        self._lease.alone = delivery.receipt

    def introduce(self, tell: Callable[[], WorkerInfo]) -> None:
        self._lease.tell = tell

    async def renew(self) -> bool:
        await checkpoint()
        with self._store.lock:
            if not self._lease.lost:
                self._lease.expires = unix_now() + self.lease
            return not self._lease.lost

    async def reconcile(self, held: Collection[Any]) -> Sequence[Delivery]:
        await checkpoint()
        with self._store.lock:
            return [
                as_delivery(places.delivered[receipt], queue, receipt)
                for receipt, (queue, places) in self._lease.held.items()
                if receipt not in held
            ]
