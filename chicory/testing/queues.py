"""Queues: what a test sees of an app whose messages stay in memory."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, final

from chicory.app import Chicory
from chicory.errors import ResultError
from chicory.links.sync_executor import finish
from chicory.result import AsyncResult
from chicory.task import Task
from chicory.testing.broker import ObservedBroker
from chicory.testing.calls import Expected
from chicory.testing.clock import Clock
from chicory.testing.drain import Drain
from chicory.testing.records import Enqueued, Run, listed
from chicory.testing.stage import on_stage
from chicory.types import ResultRecord


@final
class Queues:
    """The queues of *app*, as `memory` gives them to a test.

    clock: the test's time.  ran: every run so far, in the order in which they ended.
    """

    def __init__(self, app: Chicory, broker: ObservedBroker, clock: Clock, *, propagate: bool, autojump: float) -> None:
        self.app = app
        self.clock = clock
        self._broker = broker
        self._propagate = propagate
        self._autojump = autojump
        self._raised: dict[str, BaseException] = {}
        self._since = clock.time()

    @property
    def ran(self) -> Sequence[Run]:
        return tuple(self._broker.ran)

    def enqueued(self, task: Task[..., Any] | str | None = None, *, queue: str | None = None) -> list[Enqueued]:
        """What waits to be run, in the order in which it will be; of one task or one queue, or of all."""
        name = task.name if isinstance(task, Task) else task
        return [one for one in self._broker.enqueued() if name in (None, one.task_name) and queue in (None, one.queue)]

    def assert_enqueued(
        self,
        task: Task[..., Any] | str,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        queue: str | None = None,
        delay: float | timedelta | None = None,
        times: int | None = None,
    ) -> list[Enqueued]:
        """Fail, and say what there is instead, unless a call of *task* waits; returns those that do.

        args, kwargs: what it is called with, however the call was written: `args=[1]` is `x=1` too.  None is anything.
        queue: where it waits.  delay: seconds from its sending until it is due, to the second; 0 is at once.
        times: how many such calls wait, exactly; None is one or more, 0 is none.
        """
        expected = Expected.of(self.app, task, args, kwargs, queue=queue, delay=delay)
        waiting = self._broker.enqueued()
        found = [one for one in waiting if expected.matches(one)]
        if len(found) == times or (times is None and found):
            return found
        wanted = "none" if times is None else f"{len(found)} and not {times}"
        raise AssertionError(
            f"of {expected} there waits {wanted}; what waits is\n{listed(waiting)}\nwhat has run is\n{listed(self.ran)}"
        )

    async def drain(
        self, within: float | timedelta | None = None, *, limit: int = 1000, redeliver: bool = False
    ) -> list[Run]:
        """Run everything that waits, and what that sends, and return the runs in the order in which they ended.

        Real workers run it.  The clock moves to whatever is due next: retries and delayed tasks are waited for, in no
        time.  Raises Undrained when something is left after *limit* runs, or when a task does not end.

        within: let that many seconds pass, and leave what is due later; 0 runs what is due now.  Then schedules fire
            too: each slot that passes, and of those that have passed otherwise what `misfire` says.
        redeliver: deliver each message once more after its first run, as when a worker is killed after the work is done
            and before it could say so.  A task that is safe at least once does not mind.
        """
        span = within.total_seconds() if isinstance(within, timedelta) else within
        return await self._drain(within=span, limit=limit, redeliver=redeliver)

    def drain_sync(
        self, within: float | timedelta | None = None, *, limit: int = 1000, redeliver: bool = False
    ) -> list[Run]:
        """`drain` for sync tests.  Synchronous tasks run in the thread that calls."""
        return finish(self.drain(within, limit=limit, redeliver=redeliver), "await drain()")

    async def run_now(self, task_ids: Sequence[str]) -> None:
        """Run these and their retries, and nothing else; for eager mode."""
        for task_id in task_ids:
            await self._drain(only=task_id)

    async def _drain(self, **how: Any) -> list[Run]:
        drain = Drain(
            app=self.app, broker=self._broker, clock=self.clock, raised=self._raised, since=self._since, **how
        )
        runs = await on_stage(drain.perform, autojump=self._autojump)
        if self._propagate:
            self._raise_failures(runs)
        return runs

    def _raise_failures(self, runs: Sequence[Run]) -> None:
        failed = [run for run in runs if run.failed and not run.lost]
        errors = [self._error(run) for run in failed]
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise BaseExceptionGroup(f"{len(errors)} tasks failed", errors)

    def _error(self, run: Run) -> BaseException:
        """What the task raised, or else what `get` raises."""
        raised = self._raised.get(run.task_id)
        if raised is not None and run.failure is not None and type(raised).__name__ == run.failure.type:
            return raised
        try:
            return AsyncResult[Any](run.task_id, None).value(ResultRecord(run.state, failure=run.failure))
        except ResultError as error:
            return error

    def __repr__(self) -> str:
        return f"<queues of {self.app!r}: {len(self.enqueued())} waiting, {len(self.ran)} run>"
