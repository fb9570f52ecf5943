"""A simulated process: the trio tasks that one worker or scheduler consists of, and which are stopped all at once."""

from collections.abc import Coroutine
from contextvars import Context, ContextVar, copy_context
from types import CoroutineType
from typing import Any, cast, final

import trio
from trio.lowlevel import Abort, Task, wait_task_rescheduled

# Whose task this is.
_current: "ContextVar[Process | None]" = ContextVar("chicory_process", default=None)


@final
class Process:
    """Whatever is started in its `context`, and all that this starts, are its tasks.

    While it stands still none of them has a turn, and none of them notices, as with SIGSTOP.  One that is dead stands
    still until `bury`, so nothing of it is cleaned up, as with SIGKILL.

    pid: of this process and no other.  number: of the place that it has in its plan.  since: when it began.
    """

    def __init__(self, pid: int, number: int, name: str, since: float) -> None:
        self.pid = pid
        self.number = number
        self.name = name
        self.since = since
        self.dead = False
        self.buried = False
        self._paused = False
        self._still: list[Task] = []
        self.context: Context = copy_context()
        self.context.run(_current.set, self)

    @property
    def stands(self) -> bool:
        """Whether no task of it may have a turn."""
        return (self.dead or self._paused) and not self.buried

    def pause(self) -> None:
        """Stand still, until `go_on`."""
        self._paused = True

    def go_on(self) -> None:
        """Have a turn again."""
        self._paused = False
        self._wake()

    def kill(self) -> None:
        """Stand still for good."""
        self.dead = True

    def bury(self) -> None:
        """Let what is left of it be cancelled: nobody looks any more."""
        self.buried = True
        self._wake()

    def keep(self, task: Task) -> None:
        """*task* would have a turn, and may not."""
        self._still.append(task)

    def _wake(self) -> None:
        if self.stands:
            return
        still, self._still = self._still, []
        for task in still:
            trio.lowlevel.reschedule(task)

    def __repr__(self) -> str:
        return self.name


def current_process() -> Process | None:
    """The one whose task this is."""
    return _current.get()


class Gates(trio.abc.Instrument):
    """Puts a gate before each task that belongs to a process."""

    def task_spawned(self, task: Task) -> None:
        """See Instrument."""
        process = task.context.get(_current)
        if process is not None:
            task.coro = cast("CoroutineType[Any, Any, Any]", _Gate(task.coro, task, process))


class _Gate(Coroutine[Any, Any, Any]):
    """The coroutine of a task, which goes on only while its process does.

    What the task waited for is kept until then, be it a value or a cancellation.
    """

    def __init__(self, coro: Coroutine[Any, Any, Any], task: Task, process: Process) -> None:
        self._coro = coro
        self._send = coro.send
        self._task = task
        self._process = process
        self._kept: list[Any] = []

    def send(self, value: Any, /) -> Any:
        if self._process.stands:
            if not self._kept:
                self._kept.append(value)
            self._process.keep(self._task)
            # What trio is told by a task that waits, and is not to be cancelled.
            return _wait().send(None)
        return self._send(self._kept.pop() if self._kept else value)

    def throw(self, *error: Any) -> Any:
        return self._coro.throw(*error)

    def close(self) -> None:
        self._coro.close()

    def __await__(self) -> Any:
        return self._coro.__await__()


async def _wait() -> None:
    await wait_task_rescheduled(_never)


def _never(_: object) -> Abort:
    return Abort.FAILED
