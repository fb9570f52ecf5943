"""An asyncio event loop inside a trio run, which leaves asyncio in the rest of the process as it was.

trio-asyncio changes asyncio when it is imported: which loop is made, which one is running, and by what policy, for the
whole process and for good.  Here all of that is put back at once.  In its place a loop says that it is the running one
while it runs a callback, and only then, as asyncio's own loops do.

A program that imports trio-asyncio itself, and first, wants it as it is: then nothing is put back.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from typing import Any
from weakref import WeakSet

import trio

# Callbacks in one turn of trio.
_MOST = 64
# Seconds for tasks that are cancelled.
_FAREWELL = 5.0
_AGAIN = 0.02
_WANTED = "trio_asyncio" in sys.modules


def _import_unnoticed() -> Any:
    """trio_asyncio, imported, and what it did to asyncio undone."""
    modules = (asyncio, asyncio.events, asyncio.tasks)
    before = [(module, dict(vars(module))) for module in modules]
    try:
        import trio_asyncio
    finally:
        if not _WANTED:
            for module, names in before:
                for name, value in names.items():
                    if getattr(module, name) is not value:
                        setattr(module, name, value)
    return trio_asyncio


_trio_asyncio = _import_unnoticed()


_TrioLoop: Any = _trio_asyncio.TrioEventLoop


class _AnnouncedLoop(_TrioLoop):
    """Is the running loop of its thread while it runs a callback."""

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        return _TrioLoop.call_soon(self, self._announced, callback, *args, context=context)

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        return _TrioLoop.call_soon_threadsafe(self, self._announced, callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Any:
        return _TrioLoop.call_later(self, delay, self._announced, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None) -> Any:
        return _TrioLoop.call_at(self, when, self._announced, callback, *args, context=context)

    def _add_reader(self, fd: Any, callback: Callable[..., object], *args: Any) -> Any:
        return _TrioLoop._add_reader(self, fd, self._announced, callback, *args)

    def _add_writer(self, fd: Any, callback: Callable[..., object], *args: Any) -> Any:
        return _TrioLoop._add_writer(self, fd, self._announced, callback, *args)

    async def _main_loop_one(self, no_wait: bool = False) -> None:
        await _TrioLoop._main_loop_one(self, no_wait)
        # A turn of trio costs more than most callbacks, so one serves all that are due, within bounds.
        with suppress(trio.WouldBlock):
            for _ in range(_MOST):
                await _TrioLoop._main_loop_one(self, no_wait=True)

    def _announced(self, callback: Callable[..., object], *args: Any) -> None:
        # A run of trio may be a guest of another loop, which is the running one again afterwards.
        around = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            callback(*args)
        finally:
            asyncio._set_running_loop(around)


_loops: WeakSet[Any] = WeakSet()


@asynccontextmanager
async def open_loop() -> AsyncGenerator[Any]:
    """A loop that runs in the calling task's nursery, and ends with the block, all its tasks cancelled.

    What needs a loop is to be called by it: await loop.run_aio_coroutine(...), or loop.create_task(...).
    """
    async with _trio_asyncio.open_loop() as loop:
        if not _WANTED:
            loop.__class__ = _AnnouncedLoop
        _loops.add(loop)
        try:
            yield loop
        finally:
            # What tasks end with when they are cancelled is nobody's, but trio-asyncio would raise it here.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _FAREWELL):
                await loop.run_aio_coroutine(_end_all())


async def _end_all() -> None:
    """Cancel all tasks of the loop, and those that they start meanwhile, and return when they have ended.

    Again and again, for one that comes just when something else has happened to a task may be taken for that.
    """
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        for task in others:
            task.cancel()
        await asyncio.wait(others, timeout=_AGAIN)


def in_a_loop() -> bool:
    """Whether the caller is called by one of these loops."""
    return asyncio._get_running_loop() in _loops
