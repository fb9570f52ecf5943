"""Which call a test expects to wait, and whether one that waits is it."""

import inspect
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Self, final

import attrs

from chicory.app import Chicory
from chicory.errors import PayloadError
from chicory.task import Task
from chicory.testing.records import Enqueued, called
from chicory.types import TaskMessage
from chicory.wire import pack, unpack

# Seconds that an expected delay may be out by.
NEARLY = 1.0


@final
@attrs.frozen(kw_only=True)
class Expected:
    """A call, and where and when; None is anything."""

    task: Task[..., Any]
    call: TaskMessage | None
    queue: str | None
    delay: float | None

    @classmethod
    def of(
        cls,
        app: Chicory,
        task: Task[..., Any] | str,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        *,
        queue: str | None,
        delay: float | timedelta | None,
    ) -> Self:
        """Raises TaskNotFoundError, and ArgumentsError for arguments that no call of *task* could have."""
        found = task if isinstance(task, Task) else app.find(task)
        call = None
        if args is not None or kwargs is not None:
            call = _travelled(found.message(*(args or ()), **(kwargs or {})))
        return cls(
            task=found,
            call=call,
            queue=queue,
            delay=delay.total_seconds() if isinstance(delay, timedelta) else delay,
        )

    def matches(self, waiting: Enqueued) -> bool:
        """Whether *waiting* is such a call."""
        return (
            waiting.task_name == self.task.name
            and self.queue in (None, waiting.queue)
            and (self.delay is None or abs(waiting.delay - self.delay) < NEARLY)
            and (self.call is None or self._bound(self.call) == self._bound(waiting.message))
        )

    def _bound(self, message: TaskMessage) -> Mapping[str, Any]:
        """The arguments by the names of the parameters, defaults and all."""
        context = (None,) if self.task.takes_context else ()
        signature = inspect.signature(self.task.function)
        given = signature.bind(*context, *message.args, **message.kwargs).arguments
        defaults = {name: parameter.default for name, parameter in signature.parameters.items() if name not in given}
        return {**given, **{name: _value(default) for name, default in defaults.items()}}

    def __str__(self) -> str:
        where = "" if self.queue is None else f" in {self.queue!r}"
        when = "" if self.delay is None else f", due {self.delay:g} s after it was sent"
        return f"{self.task.name if self.call is None else called(self.call)}{where}{when}"


def _value(default: Any) -> Any:
    """What would have arrived, had *default* been sent."""
    try:
        return _travelled(TaskMessage(name="default", args=[default])).args[0]
    except PayloadError:
        return default


def _travelled(message: TaskMessage) -> TaskMessage:
    """*message* as it arrives: a tuple is a list then."""
    there = unpack(pack(message))
    assert isinstance(there, TaskMessage), "what was packed here can be unpacked"
    return there
