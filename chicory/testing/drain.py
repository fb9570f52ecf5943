"""Draining: real workers run what waits, and the clock is moved to whatever is due next, until nothing is left."""

import math
from collections.abc import MutableMapping
from contextlib import ExitStack
from functools import partial
from typing import final

import attrs
import trio

from chicory.app import Chicory
from chicory.config import evolve
from chicory.errors import LifespanError
from chicory.groups import sole
from chicory.ids import new_id
from chicory.testing.broker import ObservedBroker, Watch
from chicory.testing.catalog import ObservedCatalog
from chicory.testing.clock import Clock
from chicory.testing.desk import Desk, time_hesitates
from chicory.testing.records import Run, Undrained
from chicory.testing.slots import Slots
from chicory.worker.worker import Worker

# Seconds, by the clock of its run, after which a task is taken for one that never ends.
PATIENCE = 3600.0
# Real seconds that an asyncio loop may need for one step of its end.
CLOSING = 1.0


@final
@attrs.frozen(kw_only=True)
class Drain:
    """One drain.

    since: when the app's schedules began, in unix seconds by the clock.
    within: seconds that pass; None is until nothing is left.  limit: runs there may be.  only: the task to run, alone.
    raised: where exceptions of tasks are kept, by id.
    """

    app: Chicory
    broker: ObservedBroker
    clock: Clock
    raised: MutableMapping[str, BaseException]
    since: float
    within: float | None = None
    limit: int = 1000
    redeliver: bool = False
    only: str | None = None

    async def perform(self, desk: Desk) -> list[Run]:
        """The runs there were, in the order in which they ended; raises Undrained when it has gone on for too long."""
        full = trio.CancelScope()

        def noted() -> None:
            if len(watch.runs) >= self.limit:
                full.cancel()

        watch = Watch(noted, redeliver=self.redeliver)
        until = math.inf if self.within is None else self.clock.time() + self.within
        slots = Slots(self.app, self.broker, self.clock, since=self.since, until=until)
        with full:
            while True:
                await slots.fire()
                self.broker.promote()
                if self.broker.ready(self.only):
                    await self._work(desk, watch, slots)
                    continue
                due = min(self.broker.next_due(self.only), slots.next)
                if due > until or due == math.inf:
                    break
                self.clock.reach(due)
        if full.cancelled_caught and ((left := self.broker.enqueued(self.only)) or slots.left):
            more = ", for schedules go on" if slots.left else ""
            raise Undrained(f"there were {len(watch.runs)} runs, and that was not all{more}", left)
        if self.within is not None:
            self.clock.reach(until)
        return watch.runs

    async def _work(self, desk: Desk, watch: Watch, slots: Slots) -> None:
        """Have a worker run what is ready, what that sends, and what is due by schedule meanwhile."""
        worker = Worker(
            self.app,
            evolve(self.app.config.worker, queues=self._queues(slots)),
            scheduler=False,
            name=f"drain:{new_id()}",
            clock=trio.current_time,
            catalog=partial(ObservedCatalog, desk=desk, raised=self.raised),
        )
        patience = trio.CancelScope()
        refused: LifespanError | None = None
        with ExitStack() as closing, self.broker.watched(worker.name, watch, only=self.only), patience:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(worker.run)
                    await worker.joined()
                    # No sooner and no longer: time would jump there while a lifespan waits for anything else.
                    patience.deadline = trio.current_time() + PATIENCE
                    async with trio.open_nursery() as beside:
                        beside.start_soon(slots.keep_firing)
                        await self._done(worker)
                        beside.cancel_scope.cancel()
                    patience.deadline = math.inf
                    if self._uses_asyncio():
                        closing.enter_context(time_hesitates(CLOSING))
                    worker.stop()
            except ExceptionGroup as error:
                cause = sole(error)
                if not isinstance(cause, LifespanError):
                    raise
                refused = cause
        if refused is not None:
            raise refused
        if patience.cancelled_caught:
            raise Undrained(f"a task does not end within {PATIENCE:g} s", self.broker.enqueued(self.only))

    async def _done(self, worker: Worker) -> None:
        """Wait until nothing is ready for *worker* and nothing runs."""
        queues = worker.config.consumed
        while True:
            await worker.idle()
            if not self.broker.ready(self.only, queues) and not self.broker.holds(worker.name):
                return
            # It fetches, or is about to.
            await trio.lowlevel.checkpoint()

    def _uses_asyncio(self) -> bool:
        return "asyncio" in self.app.lifespans or any(task.flavor == "asyncio" for task in self.app.tasks.values())

    def _queues(self, slots: Slots) -> tuple[str, ...]:
        ours = {task.settings.queue for task in self.app.tasks.values()}
        return tuple(sorted({*ours, *slots.queues, *self.app.config.worker.consumed, *self.broker.queues}))
