"""Where synchronous tasks run while a test drains its queues."""

import contextvars
import math
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

import sniffio
import trio
from trio.lowlevel import RunVar
from trio.testing import MockClock

from chicory.worker.flavors import attempt

T = TypeVar("T")

# How many calls of a run time stands still for, and what its clock's threshold was before.
_standing: RunVar[tuple[int, float]] = RunVar("chicory_standing")
# The run that stands still for the present call.
_stands_for: ContextVar["trio.lowlevel.TrioToken | None"] = ContextVar("chicory_stands_for", default=None)


class Desk(Protocol):
    """Calls synchronous functions, which may block."""

    async def call(self, function: Callable[[], T]) -> T:
        """What *function* returns; virtual time stands still meanwhile."""
        ...


class Threads:
    """A thread for each, as in a worker."""

    async def call(self, function: Callable[[], T]) -> T:
        """See Desk."""
        with time_stands():
            nothing: dict[str, Any] = {}
            value, error = await trio.to_thread.run_sync(attempt, function, (), nothing)
        if error is not None:
            raise error
        return value


class Here:
    """In the thread that serves, one after another: so what is bound to the test's thread is there for its tasks too.

    While that thread waits for the result of another task, threads take over.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._away = 0

    async def call(self, function: Callable[[], T]) -> T:
        """See Desk."""
        with time_stands():
            call = _Call(function)
            with self._lock:
                here = not self._away
                if here:
                    self._calls.put(call.carry_out)
            if here:
                # Not abandoned when cancelled, as in a worker.
                with trio.CancelScope(shield=True):
                    await call.returned.wait()
            else:
                await trio.to_thread.run_sync(call.carry_out)
        if call.error is not None:
            raise call.error
        return call.value

    def serve(self) -> None:
        """Carry calls out in this thread until `close`."""
        _of_thread.here = self
        try:
            while (carry_out := self._calls.get()) is not None:
                carry_out()
        finally:
            _of_thread.here = None

    def close(self) -> None:
        """End `serve`."""
        self._calls.put(None)

    @contextmanager
    def leave(self) -> Generator[None]:
        """While this thread waits for another task."""
        with self._lock:
            self._away += 1
        try:
            # What came before has to be done by somebody, or it would wait for us and we perhaps for it.
            with suppress(Empty):
                while (carry_out := self._calls.get_nowait()) is not None:
                    carry_out()
            yield
        finally:
            with self._lock:
                self._away -= 1


class _Call:
    """One call, made in a trio run."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.value: Any = None
        self.error: BaseException | None = None
        self.returned = trio.Event()
        self._function = function
        self._run = trio.lowlevel.current_trio_token()
        self._context = contextvars.copy_context()

    def carry_out(self) -> None:
        """Call the function, as in a thread where no library runs: a task may call what it may call in a worker."""
        name, sniffio.thread_local.name = sniffio.thread_local.name, None
        try:
            self.value = self._context.run(self._function)
        except BaseException as error:
            self.error = error
            if isinstance(error, KeyboardInterrupt):
                raise
        finally:
            sniffio.thread_local.name = name
            self._run.run_sync_soon(self.returned.set)


class _OfThread(threading.local):
    here: Here | None = None


_of_thread = _OfThread()


@contextmanager
def waiting() -> Generator[None]:
    """To be entered by whoever waits, outside of trio, until another task is over."""
    run, here = _stands_for.get(), _of_thread.here
    if run is None:
        yield
        return
    # What it waits for may take time.
    run.run_sync_soon(_stand, -1)
    try:
        with nullcontext() if here is None else here.leave():
            yield
    finally:
        run.run_sync_soon(_stand, 1)


@contextmanager
def time_stands() -> Generator[None]:
    """While a call is outside of trio, where its work takes no virtual time."""
    before = _stands_for.set(trio.lowlevel.current_trio_token())
    _stand(1)
    try:
        yield
    finally:
        _stand(-1)
        _stands_for.reset(before)


@contextmanager
def time_hesitates(seconds: float) -> Generator[None]:
    """While virtual time jumps only when nothing has happened for so many real seconds."""
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, MockClock):
        yield
        return
    threshold, clock.autojump_threshold = clock.autojump_threshold, max(seconds, clock.autojump_threshold)
    try:
        yield
    finally:
        clock.autojump_threshold = threshold


def _stand(change: int) -> None:
    """Count one more call, or one less, that time stands still for."""
    clock = trio.lowlevel.current_clock()
    if not isinstance(clock, MockClock):
        return
    calls, threshold = _standing.get((0, clock.autojump_threshold))
    if not calls:
        threshold = clock.autojump_threshold
    calls += change
    _standing.set((calls, threshold))
    clock.autojump_threshold = math.inf if calls > 0 else threshold
