"""Whether a task leaves the same however its runs are cut, and it is run again."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, final

import attrs
import trio
from msgspec.structs import replace
from trio.testing import MockClock

from chicory.app import Chicory
from chicory.errors import UsageError
from chicory.ids import slot_id
from chicory.links.executor import TRIO, running_library
from chicory.task import Task
from chicory.testing.apps import memory
from chicory.testing.clock import Clock
from chicory.testing.records import Run, called
from chicory.testing.simulation.cuts import Cut, cuts, singles
from chicory.testing.simulation.dice import rolled
from chicory.testing.simulation.process import Gates
from chicory.testing.simulation.trace import silence
from chicory.testing.simulation.trial import Trial
from chicory.types import DeliveryMode, TaskMessage, TaskState

# As many seeds that cut two runs, at most.
PAIRS = 100
_BEGIN = datetime(2027, 1, 1, tzinfo=UTC)
# That of the message in every trial: a task may keep by its id what it has done.
_ID = slot_id("simulate", _BEGIN.timestamp())


class NotIdempotent(AssertionError):
    """A task that is cut and run again leaves something else than one run.  seed: the one that shows it."""

    def __init__(self, seed: int, what: str) -> None:
        self.seed = seed
        super().__init__(what)


@final
@attrs.frozen
class Simulated:
    """What was tried.  points: how often one run waits, and so may be cut.  seeds: how many were tried."""

    points: int
    seeds: int


def simulate(
    task: Task[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    fresh: Callable[[], object],
    state: Callable[[], Any] | None = None,
    check: Callable[[], object] | None = None,
    seeds: Iterable[int] | None = None,
    autojump: float = 0.0,
) -> Simulated:
    """Fail with NotIdempotent unless a call of *task* leaves the same when its runs are cut and it is run again.

    It is run once, and left alone; then once for each seed, with real workers on virtual time.  One run is cut at each
    of its awaits: killed, with nothing of it cleaned up, or cancelled, as by a worker that stops; and killed after its
    end, before the broker has heard of that.  More seeds cut two runs.  This proves what it tries: awaits, and not what
    happens between two of them or in a thread, nor two runs at one time.

    fresh: makes things as they were before, outside of the task too; called before each trial.
    state: what the task leaves, as values of its own; compared with what the run that was left alone has left.
    check: raises AssertionError, or returns False, when things are not as they should be; instead of *state* or beside.
    seeds: None is every cut of one run, and as many seeds that cut two, but no more than PAIRS.
    autojump: as of `memory`.
    """
    if state is None and check is None:
        raise UsageError("simulate() has to be told how to see what a task leaves; give it state= or check=")
    if running_library() == TRIO:
        raise UsageError("simulate() makes trio runs of its own; call it from a test that is not async")
    _refuse(task)
    message = replace(task.message(*args, **(kwargs or {})), id=_ID)
    stand = _Stand(task.app, message, fresh, state, check, autojump)
    alone = stand.attempt(())
    if alone.wrong:
        raise NotIdempotent(-1, f"{called(message)}, run once and left alone, {alone.wrong}")
    tried = 0
    for seed in _all(alone.points) if seeds is None else seeds:
        planned = cuts(seed, alone.points)
        tried += 1
        found = stand.attempt(planned)
        wrong = found.wrong
        if not wrong and found.state != alone.state:
            wrong = f"leaves {found.state!r}, and one run {alone.state!r}"
        if wrong:
            raise NotIdempotent(seed, _complaint(message, planned, alone.points, found.where, wrong, seed))
    return Simulated(alone.points, tried)


@attrs.frozen
class _Found:
    """What one trial has found."""

    points: int
    state: Any
    wrong: str
    where: Sequence[str | None]


@final
@attrs.frozen
class _Stand:
    """Makes trials of one message."""

    app: Chicory
    message: TaskMessage
    fresh: Callable[[], object]
    state: Callable[[], Any] | None
    check: Callable[[], object] | None
    autojump: float

    def attempt(self, planned: Sequence[Cut]) -> _Found:
        """What one trial finds."""
        self.fresh()
        seen: list[tuple[Any, str]] = []

        def look(run: Run) -> None:
            seen.append((None if self.state is None else self.state(), self._wrong(run)))

        with rolled(0), silence(), memory(self.app, clock=Clock(_BEGIN)):
            trial = Trial(self.app, self.message, planned)
            trio.run(trial.perform, look, clock=MockClock(autojump_threshold=self.autojump), instruments=[Gates()])
        ((state, wrong),) = seen
        return _Found(trial.points, state, wrong, trial.where)

    def _wrong(self, run: Run) -> str:
        if run.state is not TaskState.SUCCESS:
            return f"ends as {run}"
        try:
            if self.check is not None and self.check() is False:
                return "is not what the check asks for"
        except AssertionError as error:
            return f"fails the check: {error}"
        return ""


def _all(points: int) -> Iterable[int]:
    return range(singles(points) + min(singles(points), PAIRS))


def _refuse(task: Task[..., Any]) -> None:
    """UsageError for what cannot be tried."""
    if task.is_async and task.flavor == "asyncio":
        raise UsageError(f"{task.name} runs on asyncio, where time is not virtual; simulate() is for tasks on trio")
    if (task.settings.delivery_mode or task.app.delivery_mode) is DeliveryMode.AT_MOST_ONCE:
        raise UsageError(
            f"{task.name} is delivered at most once, so it is never run again; there is nothing to simulate"
        )


def _complaint(
    message: TaskMessage, planned: Sequence[Cut], points: int, where: Sequence[str | None], wrong: str, seed: int
) -> str:
    runs = [
        f"  run {number} was {cut.told(points, line)}"
        for number, (cut, line) in enumerate(zip(planned, where, strict=False), 1)
        if line is not None
    ]
    again = f"again: simulate({message.name}, {list(message.args)!r}, ..., seeds=[{seed}])"
    return "\n".join([f"{called(message)} is not idempotent:", *runs, f"  and then it {wrong}", again])
