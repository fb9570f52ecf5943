"""What a test may look at: messages that wait, and runs that are over."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, assert_never, final

import attrs

from chicory.outcome import Dead, Done, Failed, Outcome, Release, RetryIn
from chicory.types import Failure, TaskMessage, TaskState, Undecodable


@final
@attrs.frozen
class Enqueued:
    """A message that waits.  delay: seconds from its sending until it is due."""

    message: TaskMessage
    delay: float

    @property
    def task_id(self) -> str:
        return self.message.id

    @property
    def task_name(self) -> str:
        return self.message.name

    @property
    def args(self) -> Sequence[Any]:
        return self.message.args

    @property
    def kwargs(self) -> Mapping[str, Any]:
        return self.message.kwargs

    @property
    def queue(self) -> str:
        return self.message.queue

    def __str__(self) -> str:
        due = f", due {self.delay:g} s after it was sent" if self.delay else ""
        return f"{called(self.message)} in {self.queue!r}{due}"


@final
@attrs.frozen(kw_only=True)
class Run:
    """One run of one task, and what became of it.

    deliveries: as in TaskContext.  ended: when, by the test's clock.
    lost: whether its worker was as if killed before it could settle, so that the message was delivered once more.
    """

    message: TaskMessage | Undecodable
    outcome: Outcome
    deliveries: int
    ended: datetime
    lost: bool = False

    @property
    def task_id(self) -> str:
        return self.message.id if isinstance(self.message, TaskMessage) else ""

    @property
    def task_name(self) -> str:
        return self.message.name if isinstance(self.message, TaskMessage) else ""

    @property
    def state(self) -> TaskState:
        """What the result says of the task when this run is over."""
        match self.outcome:
            case Done():
                return TaskState.SUCCESS
            case Failed(_, state):
                return state
            case Dead():
                return TaskState.DEAD_LETTERED
            case RetryIn(_, _, failure):
                return TaskState.PENDING if failure is None else TaskState.RETRY
            case Release():
                return TaskState.PENDING
            case _:
                assert_never(self.outcome)

    @property
    def failed(self) -> bool:
        """Whether the task has failed for good."""
        return isinstance(self.outcome, Failed | Dead)

    @property
    def value(self) -> Any:
        """What the task returned; None when it did not."""
        return self.outcome.value if isinstance(self.outcome, Done) else None

    @property
    def failure(self) -> Failure | None:
        """Why it failed, or is tried again."""
        return self.outcome.failure if isinstance(self.outcome, Failed | Dead | RetryIn) else None

    @property
    def delay(self) -> float | None:
        """Seconds until it runs again; None when it does not."""
        return self.outcome.delay if isinstance(self.outcome, RetryIn) else None

    def __str__(self) -> str:
        told = called(self.message) if isinstance(self.message, TaskMessage) else "what cannot be decoded"
        why = f" ({self.failure})" if self.failure else ""
        again = f", again in {self.delay:g} s" if self.delay is not None else ""
        return f"{told}: {self.state.value}{why}{again}"


class Undrained(AssertionError):
    """Something still waits or runs although a drain has gone on for as long as it may.  left: what."""

    def __init__(self, why: str, left: Sequence[Enqueued]) -> None:
        self.left = left
        super().__init__(f"{why}; left are:\n{listed(left)}")


def called(message: TaskMessage) -> str:
    """The call that *message* is, as one would write it."""
    words = [*map(repr, message.args), *(f"{name}={value!r}" for name, value in message.kwargs.items())]
    return f"{message.name}({', '.join(words)})"


def listed(things: Sequence[object], most: int = 20) -> str:
    """A line for each of *things*."""
    lines = [f"  {thing}" for thing in things[:most]] or ["  nothing"]
    return "\n".join([*lines, *([f"  and {len(things) - most} more"] if len(things) > most else [])])
