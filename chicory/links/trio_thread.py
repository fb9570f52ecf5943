"""A trio run in a thread of its own, for callers of other libraries: what is written for trio serves them as it is.

There is one for all of a process, from the first call to the exit, and a child after a fork begins another.  It goes on
between the calls, so a connection answers its server whatever the caller does meanwhile, and outlives a caller's loop.
"""

import atexit
import contextlib
import contextvars
import functools
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial
from types import CoroutineType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar
from weakref import WeakSet

import attrs
import outcome
import trio

from chicory.links.executor import TRIO, Turn, checkpoint, on_this_thread, running

log = logging.getLogger("chicory")

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

# Seconds that what was cancelled may take to clean up before its caller goes on, and the thread to end at exit.
_FAREWELL = 5.0


class Closable(Protocol):
    """What is closed at once, without waiting."""

    def close(self) -> None: ...


def on_trio(
    method: "Callable[Concatenate[S, P], CoroutineType[Any, Any, R]]",
) -> "Callable[Concatenate[S, P], CoroutineType[Any, Any, R]]":
    """A method that only trio can await, for whoever calls: where another library runs, it is awaited in the thread.

    Whoever is cancelled, or has no more time, cancels it there, and goes on when it has ended.
    """

    @functools.wraps(method)
    def call(self: S, *args: P.args, **kwargs: P.kwargs) -> "CoroutineType[Any, Any, R]":
        if on_this_thread.name == TRIO:
            return method(self, *args, **kwargs)
        return _awaited(self, partial(method, self, *args, **kwargs))

    return call


async def closed(host: object, close: "Callable[[], CoroutineType[Any, Any, None]]") -> None:
    """Await *close*, which closes what *host* has open in the present run.

    What callers of other libraries share is closed when none of their calls to *host* is under way, by the last one.
    """
    if on_this_thread.name == TRIO:
        await close()
    elif _current is None:
        await checkpoint()
    else:
        await _awaited(None, partial(_current.close, host, close))


async def _awaited(host: object, work: "Callable[[], CoroutineType[Any, Any, R]]") -> R:
    if on_this_thread.name == TRIO:  # a coroutine that was made before trio ran
        return await work()
    executor, thread = running(), _thread()
    call = _Call(host, work, executor.signal())
    thread.begin(call)
    try:
        await call.ended.wait()
    except BaseException as error:
        thread.cancel(call)
        if not isinstance(error, GeneratorExit):
            await executor.briefly(_FAREWELL, call.ended.wait())
        raise
    if call.result is None:
        raise RuntimeError("the trio thread that makes the calls has ended: the process exits, or the log says why")
    return call.result.unwrap()


@attrs.define(eq=False)
class _Call:
    """One call, in the caller's context; *host* is what it needs open, if anything."""

    host: object
    work: "Callable[[], CoroutineType[Any, Any, Any]]"
    ended: Turn
    context: contextvars.Context = attrs.field(factory=contextvars.copy_context)
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    result: outcome.Outcome[Any] | None = None


class TrioThread:
    """The thread, and the calls in it."""

    def __init__(self) -> None:
        self.token: trio.lowlevel.TrioToken | None = None
        self.over = False
        # To be closed in the end.
        self.guests: WeakSet[Any] = WeakSet()
        self._calls: set[_Call] = set()
        self._under_way: Counter[object] = Counter()
        # What to close when no more calls are under way, and how.
        self._leaving: dict[object, Callable[[], CoroutineType[Any, Any, None]]] = {}
        self._exiting = False
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chicory trio", daemon=True)
        self._thread.start()

    def begin(self, call: _Call) -> None:
        """Make *call*, and set its turn when it has ended."""
        self._begun.wait()
        self._calls.add(call)
        if not self._soon(self._start, call):
            self._calls.discard(call)
            call.ended.set()

    def cancel(self, call: _Call) -> None:
        """Have *call* end soon."""
        self._soon(call.scope.cancel)

    def end(self) -> None:
        """Cancel all there is, close what is open, and wait for the end of the thread."""
        self._begun.wait()
        self._soon(self._finish)
        self._thread.join(_FAREWELL)

    def _soon(self, what: Callable[..., object], *args: Any) -> bool:
        """Whether *what* will be called there."""
        with contextlib.suppress(trio.RunFinishedError):
            if self.token is not None:
                self.token.run_sync_soon(what, *args)
                return True
        return False

    # What follows happens in the thread.

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException:
            log.exception("the thread that makes the calls of other libraries broke; the next call begins another")
        finally:
            self.over = True
            self._begun.set()
            for call in self._calls.copy():
                self._tell(call)

    async def _serve(self) -> None:
        self.token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as self._nursery:
            self._begun.set()
            await trio.sleep_forever()
        for guest in list(self.guests):
            guest.close()

    def _finish(self) -> None:
        self._exiting = True
        self._nursery.cancel_scope.cancel()

    def _start(self, call: _Call) -> None:
        if not self._exiting:
            call.context.run(self._nursery.start_soon, self._make, call)

    async def _make(self, call: _Call) -> None:
        self._under_way[call.host] += 1
        try:
            with call.scope:
                call.result = outcome.Value(await call.work())
        except trio.Cancelled:
            raise  # the thread ends
        except BaseException as error:
            call.result = outcome.Error(error)
        self._calls.discard(call)
        self._leave(call.host)
        self._tell(call)

    def _tell(self, call: _Call) -> None:
        # Who still waits while the process exits is a daemon thread, and a last error would only be noise.
        if not self._exiting:
            call.ended.set()

    def _leave(self, host: object) -> None:
        self._under_way[host] -= 1
        if not self._under_way[host]:
            del self._under_way[host]
            if (close := self._leaving.pop(host, None)) is not None:
                self._start(_Call(None, close, trio.Event()))

    async def close(self, host: object, close: "Callable[[], CoroutineType[Any, Any, None]]") -> None:
        """Await *close* now, or after the last call to *host* that is under way."""
        if self._under_way[host]:
            self._leaving[host] = close
        else:
            await close()


_current: TrioThread | None = None
_making = threading.RLock()


def serves(run: trio.lowlevel.TrioToken) -> bool:
    """Whether *run* is that of the thread."""
    return _current is not None and _current.token is run


def attend(guest: Closable) -> None:
    """Have *guest* closed when the thread ends; called there."""
    if _current is not None:
        _current.guests.add(guest)


def _thread() -> TrioThread:
    global _current
    with _making:
        if _current is None or _current.over:
            _current = TrioThread()
        return _current


def _forget() -> None:
    """In a child: the thread was not forked along, and another one may have been making it."""
    global _current, _making
    _current, _making = None, threading.RLock()


os.register_at_fork(after_in_child=_forget)


@atexit.register
def _end() -> None:
    if _current is not None:
        _current.end()
