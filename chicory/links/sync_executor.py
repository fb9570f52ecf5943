"""Conversations in a plain thread: every wait blocks, so one step is all of a coroutine.

A sync call holds a place while it lasts, and connections belong to places: no two threads ever share one, and a child
after a fork has none of its parent's.
"""

import os
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, nullcontext
from math import inf
from typing import Any, TypeVar

import sniffio

from chicory.errors import UsageError
from chicory.links.executor import BLOCKING, SYNC, Executor, Turn, running_library

T = TypeVar("T")


class Place:
    """Held by one sync call at a time; whoever comes next finds its connections open."""

    __slots__ = ("pid",)

    def __init__(self) -> None:
        self.pid = os.getpid()


class _TimeIsUp(BaseException):
    """Passes through a conversation as a cancellation would."""


class _Thread(threading.local):
    """Of each thread: the place its call holds, the one it held last, and until when it may block."""

    place: Place | None = None
    last: Place | None = None
    deadline: float = inf


_thread = _Thread()
# Taking from a list and adding to it are single steps, so no lock is needed that a fork might find taken.
_free: list[Place] = []


def finish(work: Coroutine[Any, Any, T], instead: str) -> T:
    """What *work* returns, waited for by blocking; where a loop runs, UsageError says to do *instead*."""
    library = running_library()
    if library not in (None, SYNC):
        work.close()
        raise UsageError(f"a sync call would stop the {library} loop that runs here; {instead}")
    # There is an outer call when a signal's handler calls: it has another place, and all the time it wants.
    outer, deadline, name = _thread.place, _thread.deadline, sniffio.thread_local.name
    place = _take()
    _thread.place, _thread.deadline, sniffio.thread_local.name = place, inf, BLOCKING
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    finally:
        _thread.place, _thread.deadline, sniffio.thread_local.name = outer, deadline, name
        _thread.last = place
        _free.append(place)
    work.close()
    raise UsageError(
        "a sync call waits for the broker alone; a middleware that awaits anything else is for async callers"
    )


def remaining(due: float) -> float | None:
    """Seconds that may be blocked, None for ever, when what one waits for is due at *due*."""
    until = min(due, _thread.deadline)
    if until == inf:
        return None
    left = until - time.monotonic()
    if left <= 0:
        if _thread.deadline <= due:
            raise _TimeIsUp
        raise TimeoutError("no answer in time")
    return left


def _take() -> Place:
    """A free place of this process: the one this thread held last, if that can be had."""
    pid = os.getpid()
    last = _thread.last
    if last is not None and last.pid == pid:
        try:
            _free.remove(last)
        except ValueError:
            pass
        else:
            return last
    while True:
        try:
            place = _free.pop()
        except IndexError:
            return Place()
        if place.pid == pid:
            return place


class _Never:
    """An event that nobody else could set, so nobody waits for it."""

    def set(self) -> None:
        pass

    async def wait(self) -> object:
        raise AssertionError("a sync caller waits for nobody else in its process")


class _Signal:
    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> object:
        while not self._event.wait(remaining(inf)):
            pass  # until there is no time remaining
        return None


class SyncExecutor:
    """Only used inside `finish`, where a call has everything it touches to itself."""

    name = SYNC
    now = staticmethod(time.monotonic)

    def current_run(self) -> Place:
        """See Executor."""
        assert _thread.place is not None
        return _thread.place

    def attend(self, close: Callable[[], None]) -> object:
        """See Executor.  A sync caller's run is over when its process exits."""
        return None

    def is_over(self, run: Any) -> bool:
        """See Executor."""
        return run.pid != os.getpid()

    async def sleep(self, seconds: float, /) -> None:
        """See Executor."""
        left = remaining(inf)
        time.sleep(seconds if left is None else min(seconds, left))  # noqa: ASYNC251

    def event(self) -> Turn:
        """See Executor."""
        return _Never()

    def signal(self) -> Turn:
        """See Executor."""
        return _Signal()

    def lock(self) -> AbstractAsyncContextManager[Any]:
        """See Executor.  Nobody else is there."""
        return nullcontext()

    async def within(self, seconds: float, work: Coroutine[Any, Any, T], /) -> T | None:
        """See Executor."""
        outer = _thread.deadline
        _thread.deadline = min(outer, time.monotonic() + seconds)
        try:
            return await work
        except _TimeIsUp:
            if _thread.deadline == outer:
                raise
            return None
        finally:
            _thread.deadline = outer

    async def briefly(self, seconds: float, work: Coroutine[Any, Any, object], /) -> bool:
        """See Executor."""
        outer = _thread.deadline
        _thread.deadline = time.monotonic() + seconds
        try:
            await work
        except _TimeIsUp:
            return False
        finally:
            _thread.deadline = outer
        return True


EXECUTOR: Executor = SyncExecutor()
