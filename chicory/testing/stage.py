"""The trio run in which a drain takes place: the caller's own, or one made for it."""

import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Generic, TypeVar, final

import trio
from trio.testing import MockClock

from chicory.links.executor import ASYNCIO, TRIO, running
from chicory.testing.desk import Desk, Here, Threads

T = TypeVar("T")

Work = Callable[[Desk], Awaitable[T]]


async def on_stage(work: Work[T], *, autojump: float) -> T:
    """What *work* returns.

    Of a trio caller it is a part, so tasks may use what the caller's run has opened, and time is that run's.  Others
    get a run beside them, on virtual time; *autojump* is its clock's threshold.
    """
    library = running().name
    if library == TRIO:
        return await work(Threads())
    stage = _Stage(work, autojump)
    if library == ASYNCIO:
        from chicory.links.asyncio_executor import in_thread

        return await in_thread(stage.play, stage.cancel)
    return stage.play()


@final
class _Stage(Generic[T]):
    """A trio run in a thread of its own; the thread that plays is the desk of it."""

    def __init__(self, work: Work[T], autojump: float) -> None:
        self._work = work
        self._clock = MockClock(autojump_threshold=autojump)
        self._desk = Here()
        self._scope = trio.CancelScope()
        self._run: trio.lowlevel.TrioToken | None = None
        self._cancelled = False

    def play(self) -> T:
        """What the work returns."""
        end: Future[T] = Future()
        thread = threading.Thread(target=self._perform, args=[end], name="chicory drain")
        thread.start()
        try:
            self._desk.serve()
        except BaseException:  # Ctrl-C
            self.cancel()
            raise
        finally:
            thread.join()
        return end.result()

    def cancel(self) -> None:
        """End the work early; from any thread."""
        self._cancelled = True
        if self._run is not None:
            with suppress(trio.RunFinishedError):
                self._run.run_sync_soon(self._scope.cancel)

    def _perform(self, end: "Future[T]") -> None:
        try:
            end.set_result(trio.run(self._main, clock=self._clock))
        except BaseException as error:
            end.set_exception(error)
        finally:
            self._desk.close()

    async def _main(self) -> T:
        self._run = trio.lowlevel.current_trio_token()
        if self._cancelled:
            self._scope.cancel()
        with self._scope:
            return await self._work(self._desk)
        raise RuntimeError("the drain was cancelled")
