"""What a running task may know of itself, and how it asks for something.

A task whose first parameter is annotated `TaskContext` is given one; whoever calls `delay()` leaves it out.
"""

import math
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar, cast, final, get_origin

import attrs
import trio

from chicory.carried import apart
from chicory.delay import check_delay
from chicory.errors import UsageError
from chicory.ids import new_id
from chicory.schedules.schedule import SCHEDULE, SLOT
from chicory.types import Progress, TaskMessage

__all__ = ["TaskContext"]

if TYPE_CHECKING:
    # With a default, so that a mere TaskContext stays one; for checkers alone, which bring the package along.
    from typing_extensions import TypeVar as DefaultingTypeVar

    State = DefaultingTypeVar("State", default=None)
else:
    State = TypeVar("State")

# Takes the task's id and how far it is.
Report = Callable[[str, Progress], None]

# Where no lifespan was entered.
NO_STATE: Final = object()


@final
@attrs.frozen
class TaskContext(Generic[State]):
    """One run of one task, with the state that the app's lifespan gave: `TaskContext[Resources]`.

    deliveries: how often the message was handed to a worker, 1-based; more than 1 says that a worker died with it.
    max_retries: how many retries the policy allows.
    deadline: when the run is cancelled, by this host's clock, or in tests by the test's; None without a timeout.
    report: hears what `progress` says; None where nobody listens.
    """

    message: TaskMessage
    deliveries: int = 1
    max_retries: int = 0
    deadline: datetime | None = None
    report: Report | None = attrs.field(default=None, repr=False)
    _state: State = attrs.field(default=cast("Any", NO_STATE), alias="state", repr=False, eq=False)

    @classmethod
    def of_call(cls, name: str) -> "TaskContext[Any]":
        """For a task that is called as a function, without any queue."""
        return TaskContext(TaskMessage(new_id(), name=name))

    @property
    def state(self) -> State:
        """What the lifespan of the app gave in this process; UsageError where none was entered."""
        if self._state is NO_STATE:
            raise UsageError(
                "no lifespan was entered here, nor ever is for process=True; "
                "give one, Chicory(lifespan=...), or in tests TaskContext(..., state=...)"
            )
        return self._state

    @property
    def task_id(self) -> str:
        """The task's id."""
        return self.message.id

    @property
    def task_name(self) -> str:
        """The task's name."""
        return self.message.name

    @property
    def queue(self) -> str:
        """The queue it came from."""
        return self.message.queue

    @property
    def headers(self) -> Mapping[str, str]:
        """What `options(headers=...)` sent along."""
        return apart(self.message.headers)

    @property
    def schedule(self) -> str | None:
        """The name of the schedule that sent it; None when nobody but a caller did."""
        return self.message.headers.get(SCHEDULE)

    @property
    def slot(self) -> datetime | None:
        """The instant the schedule sent it for, in UTC, however late it runs; None without a schedule."""
        try:
            return datetime.fromisoformat(self.message.headers[SLOT])
        except (KeyError, ValueError):
            return None

    @property
    def retries(self) -> int:
        """How often it has been tried again after a failure."""
        return self.message.retries

    @property
    def remaining_retries(self) -> int:
        """How many retries are left."""
        return max(0, self.max_retries - self.message.retries)

    @property
    def is_last_retry(self) -> bool:
        """Whether a failure of this try is the task's failure, as far as counting goes."""
        return self.remaining_retries == 0

    @property
    def idempotency_key(self) -> str:
        """The same for every try of this task and for no other task, for services that do a thing once for each key."""
        return self.message.id

    def retry(self, *, countdown: float | timedelta | None = None, why: str = "the task asked for a retry") -> NoReturn:
        """End this try as failed, and try again after *countdown* seconds instead of what the retry policy says.

        It counts as a retry: when the policy allows no more, the task has failed.
        """
        raise Retry(why, None if countdown is None else _seconds(countdown))

    def fail(self, why: BaseException | str) -> NoReturn:
        """The task has failed, and trying again would not help, whatever the retry policy says.

        An exception becomes its failure, as if it had been raised.
        """
        raise GiveUp(why) from (why if isinstance(why, BaseException) else None)

    def snooze(self, delay: float | timedelta) -> NoReturn:
        """Not now: run again after *delay* seconds.  That is no failure and costs no retry."""
        raise Snooze(_seconds(delay))

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Let `AsyncResult.info` tell how far this run is: *done* of *total*, and a note of at most 1000 characters.

        It costs next to nothing and never fails the task: only the last word is written, twice a second at most, and
        with the task's end.  Async and synchronous tasks may call it, and so may threads of theirs.
        """
        if self.report is not None:
            text = str(note)[:1000].encode("utf-8", "backslashreplace").decode()
            self.report(self.message.id, Progress(_number(done), None if total is None else _number(total), text))

    def checkpoint(self) -> None:
        """For synchronous tasks: end here if the run was cancelled or its time is over.

        A thread cannot be stopped from outside, so a long synchronous task should call this now and then.
        """
        try:
            trio.from_thread.check_cancelled()
        except RuntimeError:
            # Not in a worker's thread: called as a function.  There is nobody who could cancel it.
            return


def _number(value: float) -> float:
    """*value* as JSON has it; 0 for what is no number there: a task must not fail for what it says of itself."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return number if math.isfinite(number) else 0.0


@final
class Retry(Exception):
    """Try again, after *delay* seconds where that is given."""

    def __init__(self, why: str, delay: float | None) -> None:
        self.delay = delay
        super().__init__(why)


@final
class Snooze(Exception):
    """Run again after *delay* seconds."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        super().__init__(f"for {delay:g} s")


@final
class GiveUp(Exception):
    """The task has failed."""

    def __init__(self, why: BaseException | str) -> None:
        self.error = why if isinstance(why, BaseException) else self
        super().__init__(why)


# Raised in a task to say how it wants to go on.
Request = Retry | Snooze | GiveUp


def _seconds(delay: float | timedelta) -> float:
    return check_delay(delay.total_seconds() if isinstance(delay, timedelta) else delay)


def wants_context(annotation: Any) -> bool:
    """Whether a parameter annotated so is to be given the context."""
    if isinstance(annotation, str):
        return annotation.partition("[")[0] in ("TaskContext", "context.TaskContext", "chicory.TaskContext")
    return annotation is TaskContext or get_origin(annotation) is TaskContext
