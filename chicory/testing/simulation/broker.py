"""SimBroker: a memory broker at the end of lines on which commands and answers get lost."""

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any, Protocol, TypeVar

import trio

from chicory.brokers.base import CancellingConsumer, Consumer, Delivery, Keeper, Settlement
from chicory.brokers.memory import MemoryBroker
from chicory.errors import BrokerUnavailable, PublishUnknown
from chicory.testing.simulation.line import Line, Read
from chicory.types import TaskMessage

T = TypeVar("T")


class Network(Protocol):
    """What the broker is reached by."""

    def line(self) -> Line:
        """That of whoever calls."""
        ...

    def begin(self, read: Read) -> None:
        """Have the broker serve *read*."""
        ...

    def settled(self, settlement: Settlement, *, cancelled: bool) -> None:
        """It was carried out; *cancelled*: its task is, so that was the end of it whatever it said."""
        ...

    def reclaimed(self, consumer: str) -> None:
        """What *consumer* held was taken from it."""
        ...


class SimBroker(MemoryBroker):
    """See MemoryBroker."""

    def __init__(self, network: Network, *, lease: float) -> None:
        super().__init__(lease=lease)
        self._network = network

    async def publish(self, message: TaskMessage, queue: str | None = None, *, delay: float | None = None) -> str:
        """See Broker."""

        async def apply() -> str:
            return await MemoryBroker.publish(self, message, queue, delay=delay)

        try:
            return await self._network.line().call("publish", apply)
        except BrokerUnavailable as error:
            raise PublishUnknown([message.id], str(error)) from error

    async def publish_many(self, messages: Sequence[TaskMessage], queue: str | None = None) -> Sequence[str]:
        """See Broker."""

        async def apply() -> Sequence[str]:
            return await MemoryBroker.publish_many(self, messages, queue)

        try:
            return await self._network.line().call("publish", apply)
        except BrokerUnavailable as error:
            raise PublishUnknown([message.id for message in messages], str(error)) from error

    async def cancel(self, task_id: str) -> bool:
        """See CancellingBroker."""

        async def apply() -> bool:
            return await MemoryBroker.cancel(self, task_id)

        return await self._network.line().call("cancel", apply)

    @asynccontextmanager
    async def consumer(self, queues: Sequence[str], *, name: str, limit: int) -> AsyncGenerator[Consumer, None]:
        """See Broker."""
        line = self._network.line()
        await line.call("join", trio.lowlevel.checkpoint)
        async with super().consumer(queues, name=name, limit=limit) as consumer:
            lease = self._store.leases[name]
            yield _SimConsumer(self._network, line, consumer)
        if line.away and not lease.lost:
            # It has left, and the broker does not hear of it.
            self._store.leases[name] = lease

    def keeper(self, queues: Sequence[str]) -> AbstractAsyncContextManager[Keeper]:
        """See Broker."""
        return self._sim_keeper(queues)

    @asynccontextmanager
    async def _sim_keeper(self, queues: Sequence[str]) -> AsyncGenerator[Keeper, None]:
        async with super().keeper(queues) as keeper:
            yield _SimKeeper(self._network.line(), keeper, partial(self._reclaim, queues))

    def _reclaim(
        self, queues: Sequence[str], limit: int, dead: str | None, why: str, most: int | None, *, judges: bool
    ) -> int:
        """Reclaim, but take nobody for dead by his silence unless *judges*; and say from whom."""
        store = self._store
        with store.lock:
            leases = {lease: lease.expires for lease in store.leases.values() if not lease.lost}
            for lease in leases:
                lease.expires = lease.expires if judges else math.inf
            taken = store.reclaim([store.places(queue) for queue in queues], limit, dead, why, most)
            for lease, expires in leases.items():
                lease.expires = expires
                if lease.lost:
                    self._network.reclaimed(lease.name)
        return taken


class _SimConsumer:
    """See Consumer.

    A settling whose answer got lost is remembered by the broker, as with every driver: repeated, it is not done again,
    and is told the same.
    """

    def __init__(self, network: Network, line: Line, consumer: Consumer) -> None:
        self._network = network
        self._line = line
        self._consumer = consumer
        self._acknowledged: dict[Any, Delivery | None] = {}
        self._settled: dict[Any, bool] = {}
        self.name = consumer.name
        self.lease = consumer.lease

    def now(self) -> float:
        return self._consumer.now() + self._line.skew

    async def receive(self, limit: int) -> Sequence[Delivery]:
        return await self._line.read(self._consumer, limit, self._network.begin)

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery | None]:
        async def apply() -> Sequence[Delivery | None]:
            fresh = [one for one in deliveries if one.receipt not in self._acknowledged]
            for one, acked in zip(fresh, await self._consumer.acknowledge(fresh), strict=True):
                self._acknowledged[one.receipt] = acked
            return [self._acknowledged[one.receipt] for one in deliveries]

        return await self._line.call("acknowledge", apply)

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        async def apply() -> Sequence[bool]:
            fresh = [one for one in settlements if one.delivery.receipt not in self._settled]
            cancelled = set(self.cancelled)
            for one, held in zip(fresh, await self._consumer.settle(fresh), strict=True):
                self._settled[one.delivery.receipt] = held
                if held:
                    self._network.settled(one, cancelled=_task_id(one) in cancelled)
            return [self._settled[one.delivery.receipt] for one in settlements]

        held = await self._line.call("settle", apply)
        for one in settlements:
            del self._settled[one.delivery.receipt]
        return held

    @property
    def cancelled(self) -> Collection[str]:
        assert isinstance(self._consumer, CancellingConsumer)
        return self._consumer.cancelled

    async def heard(self) -> Collection[str]:
        assert isinstance(self._consumer, CancellingConsumer)
        return await self._consumer.heard()

    async def isolate(self, delivery: Delivery) -> None:
        await self._line.call("isolate", lambda: self._consumer.isolate(delivery))

    async def renew(self) -> bool:
        return await self._line.call("renew", self._consumer.renew)

    def reconnect(self) -> None:
        pass

    async def reconcile(self, held: Collection[Any]) -> Sequence[Delivery]:
        return await self._line.call("reconcile", lambda: self._consumer.reconcile(held))


class _SimKeeper:
    """See Keeper.  After a failure nobody is taken for dead by silence until a lease has passed, as in Redis."""

    def __init__(self, line: Line, keeper: Keeper, reclaim: Callable[..., int]) -> None:
        self._line = line
        self._keeper = keeper
        self._reclaim = reclaim
        self._judge_from = -math.inf
        self.lease = keeper.lease

    async def promote(self, limit: int = 256) -> float | None:
        return await self._call("promote", lambda: self._keeper.promote(limit))

    async def reclaim(
        self, limit: int = 256, *, dead: str | None = None, why: str = "", most: int | None = None
    ) -> int:
        async def apply() -> int:
            await trio.lowlevel.checkpoint()
            return self._reclaim(limit, dead, why, most, judges=trio.current_time() >= self._judge_from)

        return await self._call("reclaim", apply)

    async def renew(self, workers: Collection[str]) -> int:
        return await self._call("renew", lambda: self._keeper.renew(workers))

    async def changed(self) -> None:
        await self._keeper.changed()

    async def _call(self, command: str, apply: Callable[[], Awaitable[T]]) -> T:
        try:
            return await self._line.call(command, apply)
        except BrokerUnavailable:
            self._judge_from = trio.current_time() + self.lease
            raise


def _task_id(settlement: Settlement) -> str:
    message = settlement.delivery.message
    return message.id if isinstance(message, TaskMessage) else ""
