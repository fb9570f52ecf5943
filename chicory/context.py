"""What a running task may know of itself, and the exceptions by which it asks for something.

A task whose first parameter is annotated `TaskContext` is given one; whoever calls `delay()` leaves it out.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, final

import attrs
import trio

from chicory.delay import check_delay
from chicory.ids import new_id
from chicory.schedules.schedule import SCHEDULE, SLOT
from chicory.types import TaskMessage

__all__ = ["GiveUp", "Retry", "Snooze", "TaskContext"]


@final
@attrs.frozen
class TaskContext:
    """One run of one task.

    deliveries: how often the message was handed to a worker, 1-based; more than 1 says that a worker died with it.
    """

    message: TaskMessage
    deliveries: int = 1

    @classmethod
    def of_call(cls, name: str) -> "TaskContext":
        """For a task that is called as a function, without any queue."""
        return cls(TaskMessage(new_id(), name=name))

    @property
    def id(self) -> str:
        """The task's id; the same for every try, so it serves as an idempotency key."""
        return self.message.id

    @property
    def name(self) -> str:
        """The task's name."""
        return self.message.name

    @property
    def queue(self) -> str:
        """The queue it came from."""
        return self.message.queue

    @property
    def retries(self) -> int:
        """How often it has been tried again after an exception."""
        return self.message.retries

    @property
    def headers(self) -> Mapping[str, str]:
        """What `options(headers=...)` sent along."""
        return self.message.headers

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

    def checkpoint(self) -> None:
        """For synchronous tasks: end here if the run was cancelled or its time is over.

        A thread cannot be stopped from outside, so a long synchronous task should call this now and then.
        """
        try:
            trio.from_thread.check_cancelled()
        except RuntimeError:
            # Not in a worker's thread: called as a function.  There is nobody who could cancel it.
            return


class _Request(Exception):
    """Raised by a task to say how it wants to go on."""


class Retry(_Request):
    """This try failed; try again, after *delay* seconds instead of what the retry policy says.

    It counts as a retry: when the policy allows no more, the task has failed.
    """

    def __init__(self, why: str = "the task asked for a retry", *, delay: float | None = None) -> None:
        self.delay = None if delay is None else check_delay(delay)
        super().__init__(why)


class Snooze(_Request):
    """Not now: run again after *delay* seconds.  That is no failure and is not counted."""

    def __init__(self, delay: float) -> None:
        self.delay = check_delay(delay)
        super().__init__(f"for {delay:g} s")


class GiveUp(_Request):
    """The task has failed, and trying again would not help."""


def wants_context(annotation: Any) -> bool:
    """Whether a parameter annotated so is to be given the context."""
    return annotation is TaskContext or annotation in ("TaskContext", "context.TaskContext", "chicory.TaskContext")
