"""Conversations in a coroutine of an asyncio loop."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, TypeVar

from chicory.links.executor import ASYNCIO, Executor

T = TypeVar("T")


class _Signal:
    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def set(self) -> None:
        # Whoever waited is gone with its loop.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> object:
        return await self._event.wait()


class AsyncioExecutor:
    """Nothing here outlives its loop, and no task is started behind the caller's back."""

    name = ASYNCIO
    current_run = staticmethod(asyncio.get_running_loop)
    sleep = staticmethod(asyncio.sleep)
    event = staticmethod(asyncio.Event)
    signal = staticmethod(_Signal)
    lock = staticmethod(asyncio.Lock)

    def attend(self, close: Callable[[], None]) -> object:
        """See Executor.  Whoever runs a loop ends it with `shutdown_asyncgens`, and that ends a generator of ours."""
        farewell = _farewell(close)
        # One step brings it to its yield, and makes it known to the loop.
        with contextlib.suppress(StopIteration):
            farewell.__anext__().send(None)
        return farewell

    def is_over(self, run: Any) -> bool:
        """See Executor."""
        return run.is_closed()

    def now(self) -> float:
        """See Executor."""
        return asyncio.get_running_loop().time()

    async def within(self, seconds: float, work: Coroutine[Any, Any, T], /) -> T | None:
        """See Executor."""
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await work
        except TimeoutError:
            if not limit.expired():
                raise
            return None

    async def briefly(self, seconds: float, work: Coroutine[Any, Any, object], /) -> bool:
        """See Executor.  Asyncio cancels once, and that is over when cleaning up begins."""
        try:
            async with asyncio.timeout(seconds):
                await work
        except TimeoutError:
            return False
        return True


def is_running() -> bool:
    """Whether a loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def in_thread(work: Callable[[], T], cancel: Callable[[], object]) -> T:
    """What *work* returns, which blocks and so has a thread; should the caller be cancelled, *cancel* makes it end."""
    future = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        cancel()
        await asyncio.wait([future])
        raise


async def _farewell(close: Callable[[], None]) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        close()


EXECUTOR: Executor = AsyncioExecutor()
