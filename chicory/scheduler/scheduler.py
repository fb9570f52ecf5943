"""Scheduler: makes delayed messages ready on time, gives back the deliveries of dead workers, and fires schedules.

Any number may run at once, in processes of their own or inside workers: what they ask of the broker is atomic and may
be asked twice.
"""

import logging
from collections import deque
from collections.abc import Collection, Sequence
from typing import final

import attrs
import trio

from chicory.app import Chicory
from chicory.brokers.base import Broker, Keeper
from chicory.errors import BrokerError
from chicory.groups import sole
from chicory.outage import Outage
from chicory.outcome import most_shared
from chicory.scheduler.firing import Firing
from chicory.scheduler.pacing import COUNT_EVERY, RECLAIM_EVERY, RENEW_EVERY, next_wake

log = logging.getLogger("chicory.scheduler")

BATCH = 256


@attrs.frozen
class Death:
    """A worker that is known to be dead, whatever its lease says."""

    consumer: str
    why: str


@final
class Scheduler:
    """The scheduler of *queues*.

    app: whose schedules it fires, into whatever queue; None fires none.
    max_deliveries: of the workers.  outage: shared with a worker in the same nursery, so that both complain once.
    ready: how many messages waited for a worker when `backlog` last looked; None when it cannot tell.
    """

    def __init__(
        self,
        broker: Broker,
        queues: Sequence[str],
        *,
        app: Chicory | None = None,
        max_deliveries: int = 3,
        outage: Outage | None = None,
    ) -> None:
        self._broker = broker
        self._queues = queues
        self._outage = outage or Outage()
        self._firing = None if app is None else Firing(app, self._outage)
        self._most = most_shared(max_deliveries)
        self._deaths: deque[Death] = deque()
        self._alive: tuple[str, ...] = ()
        self._renew_at = float("inf")
        self._buried = trio.Event()
        self._buried.set()
        self._wake = trio.Event()
        self._working = trio.Event()
        self.reclaimed = 0
        self.ready: int | None = None

    async def run(self) -> None:
        """Work until cancelled."""
        async with trio.open_nursery() as nursery:
            if self._firing is not None:
                nursery.start_soon(self._firing.run)
            nursery.start_soon(self._run)

    def died(self, consumer: str, why: str) -> None:
        """Give back what *consumer* held, now."""
        self._alive = tuple(one for one in self._alive if one != consumer)
        self._deaths.append(Death(consumer, why))
        if self._buried.is_set():
            self._buried = trio.Event()
        self._wake.set()

    def live(self, consumers: Collection[str]) -> None:
        """These are known to live: renew their leases until told otherwise, for they may be too busy to."""
        self._alive = tuple(consumers)
        self._renew_at = trio.current_time()
        self._wake.set()

    async def working(self) -> None:
        """Wait until it has done its work for the first time: until then the broker may be away, or refuse it."""
        await self._working.wait()

    async def backlog(self) -> None:
        """Count what waits for workers now and then, as `ready`, until cancelled."""
        while True:
            try:
                self.ready = sum([(await self._broker.get_queue_sizes(queue)).ready for queue in self._queues])
            except BrokerError:
                self.ready = None  # `run` says why
            await trio.sleep(COUNT_EVERY)

    async def buried(self) -> None:
        """Wait until whatever was reported dead has been given back."""
        await self._buried.wait()

    async def _run(self) -> None:
        while True:
            try:
                keeping = self._broker.keeper(self._queues)
                if keeping is None:
                    await self._leave_it_to_the_broker()
                else:
                    async with keeping as keeper:
                        await self._keep_on(keeper)
            except (BrokerError, BaseExceptionGroup) as error:
                await self._try_later(error)

    async def _leave_it_to_the_broker(self) -> None:
        """The broker gives back by itself what the dead held, so nobody need wait for that."""
        await self._broker.ping()
        self._outage.answered("schedule")
        self._working.set()
        while True:
            self._wake = trio.Event()
            self._deaths.clear()
            self._buried.set()
            await self._wake.wait()

    async def _keep_on(self, keeper: Keeper) -> None:
        """Keep for good: a new keeper would not know of an outage, and take for dead who could not renew meanwhile."""
        while True:
            try:
                await self._keep(keeper)
            except (BrokerError, BaseExceptionGroup) as error:
                await self._try_later(error)

    async def _try_later(self, error: BrokerError | BaseExceptionGroup[BaseException]) -> None:
        cause = sole(error)
        if isinstance(cause, BrokerError):
            await trio.sleep(self._outage.failed("schedule", cause))
            return
        if isinstance(error, BaseExceptionGroup) and error.split((BrokerError, trio.Cancelled))[1] is None:
            # We are stopped in the moment in which the broker fails, so that does not matter any more.
            await trio.lowlevel.checkpoint()
        raise error

    async def _keep(self, keeper: Keeper) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, keeper)
            reclaim_at = trio.current_time()
            while True:
                # Before looking, so that whatever happens meanwhile makes the next sleep a short one.
                self._wake = trio.Event()
                more = await self._bury(keeper)
                reclaiming = trio.current_time() >= reclaim_at
                if reclaiming or trio.current_time() >= self._renew_at:
                    # Before anybody is judged by his silence: who is known to live may have been stopped as we were.
                    await self._renew(keeper)
                if reclaiming:
                    more = await self._reclaim(keeper, None) or more
                    reclaim_at = trio.current_time() if more else trio.current_time() + RECLAIM_EVERY
                due = await keeper.promote(BATCH)
                self._outage.answered("schedule")
                self._working.set()
                look = min(reclaim_at, self._renew_at) - trio.current_time()
                with trio.move_on_after(next_wake(due, look, more=more)):
                    await self._wake.wait()

    async def _renew(self, keeper: Keeper) -> None:
        asked, self._renew_at = trio.current_time(), float("inf")
        if self._alive:
            await keeper.renew(self._alive)
            self._renew_at = min(self._renew_at, asked + keeper.lease * RENEW_EVERY)

    async def _bury(self, keeper: Keeper) -> bool:
        more = False
        while self._deaths and not more:
            more = await self._reclaim(keeper, self._deaths[0])
            if not more:
                self._deaths.popleft()
        if not self._deaths:
            self._buried.set()
        return more

    async def _reclaim(self, keeper: Keeper, death: Death | None) -> bool:
        """Take back a batch; True when there may be more."""
        if death is None:
            taken = await keeper.reclaim(BATCH, most=self._most)
        else:
            taken = await keeper.reclaim(BATCH, dead=death.consumer, why=death.why, most=self._most)
        if taken:
            whose = "of workers whose lease lapsed" if death is None else f"of {death.consumer} ({death.why})"
            log.warning("%d deliveries %s were given back", taken, whose)
        self.reclaimed += taken
        return taken >= BATCH

    async def _listen(self, keeper: Keeper) -> None:
        while True:
            try:
                await keeper.changed()
                self._wake.set()
            except BrokerError as error:
                # Promoting is what must succeed for the outage to be over: this may hear nothing for hours.
                await trio.sleep(self._outage.failed("schedule", error))
