"""Moves what time moves in a memory broker."""

from collections.abc import Collection

from chicory.brokers.base import life
from chicory.brokers.memory.places import Places
from chicory.brokers.memory.store import Store
from chicory.clock import unix_now
from chicory.links.executor import checkpoint


class MemoryKeeper:
    """See Keeper."""

    def __init__(self, store: Store, queues: Collection[Places]) -> None:
        self._store = store
        self._queues = queues
        self._seen = 0

    @property
    def lease(self) -> float:
        return self._store.limits.lease

    async def promote(self, limit: int = 256) -> float | None:
        await checkpoint()
        with self._store.lock:
            now = unix_now()
            if sum(places.promote(now, limit) for places in self._queues):
                self._store.arrival.ring()
            # Remembered, so that a message that comes before `changed` is called still ends that wait.
            self._seen = self._reschedules()
            dues = [places.next_due for places in self._queues if places.next_due is not None]
            return max(0.0, min(dues) - now) if dues else None

    async def reclaim(
        self, limit: int = 256, *, dead: str | None = None, why: str = "", most: int | None = None
    ) -> int:
        await checkpoint()
        with self._store.lock:
            return self._store.reclaim(self._queues, limit, dead, why, most)

    async def renew(self, workers: Collection[str]) -> int:
        await checkpoint()
        with self._store.lock:
            leases = [lease for lease in self._store.leases.values() if not lease.lost]
            renewed = 0
            for worker in workers:
                lives = {life(lease.name, worker): lease for lease in leases}
                last = max(lives, default=0)
                if last:
                    lives[last].expires = unix_now() + self.lease
                    renewed += len(self._queues)
            return renewed

    async def changed(self) -> None:
        await checkpoint()
        while True:
            with self._store.lock:
                if self._seen != self._reschedules():
                    self._seen = self._reschedules()
                    return
                turn = self._store.rescheduled.turn()
            await self._store.rescheduled.heard(turn)

    def _reschedules(self) -> int:
        return sum(places.reschedules for places in self._queues)
