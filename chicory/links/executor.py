"""Who carries a conversation with a server: trio, an asyncio loop, or a plain thread that blocks.

What is said, and what the answers mean, is written once, in coroutines that wait for nothing but what an executor
gives them.  Which executor that is, the running library decides, by sniffio's test.
"""

import contextlib
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

import sniffio
import trio

from chicory.errors import UsageError

T = TypeVar("T")

TRIO, ASYNCIO, SYNC = "trio", "asyncio", "sync"

# All of them, as a driver says that has a way for each.
CALLERS = frozenset([TRIO, ASYNCIO, SYNC])

# Its `name` is TRIO wherever trio runs.
on_this_thread = sniffio.thread_local

# What sniffio calls a thread in which `sync_executor.finish` is at work.
BLOCKING = "chicory-sync"


class Turn(Protocol):
    """Something one caller waits for and another one sets."""

    def set(self) -> None: ...
    async def wait(self) -> object: ...


class Executor(Protocol):
    """What one library offers to a conversation."""

    name: str

    def current_run(self) -> Any:
        """What connections must not outlive: the trio run, the loop, or the place that a sync caller holds."""
        ...

    def attend(self, close: Callable[[], None]) -> object:
        """Have *close* called when the current run is over, where the library tells; keep what is returned."""
        ...

    def is_over(self, run: Any) -> bool:
        """Whether nobody will ever call from *run* again."""
        ...

    def now(self) -> float:
        """Seconds by the library's own clock."""
        ...

    async def sleep(self, seconds: float, /) -> None:
        """Wait."""
        ...

    def event(self) -> Turn:
        """An event that is not set."""
        ...

    def signal(self) -> Turn:
        """An event that is not set, and that any thread may set."""
        ...

    def lock(self) -> AbstractAsyncContextManager[Any]:
        """A lock that is free."""
        ...

    async def within(self, seconds: float, work: Coroutine[Any, Any, T], /) -> T | None:
        """What *work* returns, None when it takes longer; then it was given up."""
        ...

    async def briefly(self, seconds: float, work: Coroutine[Any, Any, object], /) -> bool:
        """Do *work* although the caller is being cancelled; whether it was done in time."""
        ...


class _TrioSignal:
    def __init__(self) -> None:
        self._event = trio.Event()
        self._run = trio.lowlevel.current_trio_token()

    def set(self) -> None:
        if on_this_thread.name == TRIO and trio.lowlevel.current_trio_token() is self._run:
            self._event.set()
            return
        # Whoever waited is gone with its run.
        with contextlib.suppress(trio.RunFinishedError):
            self._run.run_sync_soon(self._event.set, idempotent=True)

    async def wait(self) -> object:
        return await self._event.wait()


class TrioExecutor:
    """The one that workers use."""

    name = TRIO
    current_run = staticmethod(trio.lowlevel.current_trio_token)
    now = staticmethod(trio.current_time)
    sleep = staticmethod(trio.sleep)
    event = staticmethod(trio.Event)
    signal = staticmethod(_TrioSignal)
    lock = staticmethod(trio.Lock)

    def attend(self, close: Callable[[], None]) -> object:
        """See Executor.  Trio does not tell: the next run closes what the last one left."""
        return None

    def is_over(self, run: Any) -> bool:
        """See Executor."""
        return run is not trio.lowlevel.current_trio_token()

    async def within(self, seconds: float, work: Coroutine[Any, Any, T], /) -> T | None:
        """See Executor."""
        with trio.move_on_after(seconds):
            return await work
        return None

    async def briefly(self, seconds: float, work: Coroutine[Any, Any, object], /) -> bool:
        """See Executor."""
        with trio.move_on_after(seconds, shield=True):
            await work
            return True
        return False


TRIO_EXECUTOR: Executor = TrioExecutor()


def running() -> Executor:
    """The executor of whoever calls; raises UsageError where nothing runs that could await."""
    library = running_library()
    if library == TRIO:
        return TRIO_EXECUTOR
    if library == SYNC:
        from chicory.links.sync_executor import EXECUTOR

        return EXECUTOR
    if library == ASYNCIO:
        from chicory.links.asyncio_executor import EXECUTOR as LOOPS

        return LOOPS
    if library is None:
        raise UsageError("neither trio nor asyncio runs here; sync code calls delay_sync(), send_sync() and get_sync()")
    raise UsageError(f"{library} runs here; await where trio or asyncio runs, or call delay_sync() in a thread")


def running_library() -> str | None:
    """What runs here: TRIO, ASYNCIO, SYNC for a sync call of ours, another library's name, or None."""
    try:
        library = sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        return None
    if library == ASYNCIO:
        from chicory.links.asyncio_executor import is_running

        # A thread that was given its starter's context variables is told of its starter's loop.
        return ASYNCIO if is_running() else None
    return SYNC if library == BLOCKING else library


async def checkpoint() -> None:
    """Let others run, and be cancelled, whoever calls."""
    if on_this_thread.name == TRIO:
        await trio.lowlevel.checkpoint()
    else:
        await running().sleep(0)
