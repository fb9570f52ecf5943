"""A thread that sees what the event loop cannot: that the loop stands still, and that chicoryd has gone meanwhile.

The loop itself sees to the one that asyncio's tasks have beside it.
"""

import contextlib
import logging
import os
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from types import FrameType
from typing import TYPE_CHECKING

import trio

from chicory.exits import INTERNAL
from chicory.journal import Report
from chicory.types import TaskMessage

if TYPE_CHECKING:
    from chicory.worker.flavors import Flavors

log = logging.getLogger("chicory.worker")

# Seconds between two stamps that the loop leaves behind.
TICK = 0.5
# Seconds for which the loop may be late before the thread says by whose fault.
LOOP_LAG_WARN = 1.0
# Seconds that a worker may be left after its time is over; a little of them is spent on leaving.
OVERTIME = 1.75
# Whoever reads our log may be stuck, and the thread must not be stuck with him.
_TELLING = 0.5
_DEEPEST = 30
_HANG_UP = getattr(select, "POLLRDHUP", select.POLLHUP)


class Watchdog:
    """Watches the loop of the thread that makes it.

    lifeline: the descriptor that ends when chicoryd has gone; None without chicoryd.
    grace: seconds that tasks may run after that.  A worker that is still there a little later is ended, because a
        loop that stands still cannot end it.
    """

    def __init__(
        self,
        lifeline: int | None,
        grace: float,
        *,
        late: float = LOOP_LAG_WARN,
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        self._lifeline = lifeline
        self._patience = grace + OVERTIME
        self._late = late
        self._leave = leave
        self._watched = threading.get_ident()
        self._turned = float("inf")
        self._lag = 0.0

    @contextlib.contextmanager
    def watching(self) -> Generator[None]:
        """The thread lives as long as this block."""
        ours, theirs = socket.socketpair()
        thread = threading.Thread(target=self._watch, args=(theirs,), name="watchdog", daemon=True)
        with ours, theirs:
            thread.start()
            try:
                yield
            finally:
                ours.send(b"x")
                thread.join(2 * _TELLING)

    async def pulse(self, turned: Callable[[], None]) -> None:
        """Show that the loop turns, until cancelled; *turned* is called each time."""
        try:
            while True:
                self._turned = time.monotonic()
                turned()
                due = trio.current_time() + TICK
                await trio.sleep_until(due)
                late = trio.current_time() - due
                self._lag = max(self._lag, late)
                if late > self._late:
                    log.warning("the event loop turns again; it stood still for %.1f s", late)
        finally:
            self._turned = float("inf")

    async def watch(self, flavors: "Flavors") -> None:
        """Say when the asyncio loop stands still while tasks are on it, until cancelled."""
        asked, told = float("inf"), False
        while True:
            due = trio.current_time() + TICK
            await trio.sleep_until(due)
            loop, now = flavors.asyncio_loop, time.monotonic()
            if loop is None or loop.over:
                asked, told = float("inf"), False
            elif asked > loop.turned and now > asked:
                # Unless this loop stood still as well: then it was not for the other to turn.
                if not told and now - asked > self._late and trio.current_time() - due < TICK:
                    told = True
                    complaint = f"the asyncio loop has stood still for {now - asked:.1f} s: a task holds it"
                    _tell(complaint + _where(loop.thread))
            else:
                if told:
                    log.warning("the asyncio loop turns again; it stood still for %.1f s", loop.turned - asked)
                asked, told = float("inf"), False
                if loop.busy:
                    asked = now
                    loop.ping()

    def lag(self) -> float:
        """The most seconds that the loop was late since this was last asked."""
        lag, self._lag = self._lag, 0.0
        return lag

    def _watch(self, ended: socket.socket) -> None:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        if self._lifeline is not None:
            poll.register(self._lifeline, _HANG_UP)
        leave_at = told = float("inf")
        while True:
            turned = self._turned
            # As long as the loop turns, this is far enough ahead never to wake more often than the loop does.
            look_at = time.monotonic() + self._late if turned in (told, float("inf")) else turned + TICK + self._late
            due = min(look_at, leave_at)
            found = {fd for fd, _ in poll.poll(max(0.0, due - time.monotonic()) * 1000 + 1)}
            now = time.monotonic()
            if ended.fileno() in found:
                return
            if self._lifeline in found:
                poll.unregister(self._lifeline)
                leave_at = now + self._patience
            if now >= leave_at:
                _tell(
                    f"chicoryd has gone and the time for what runs is over, leaving without it{_where(self._watched)}"
                )
                self._leave(INTERNAL)
                return
            if self._turned == turned and turned != told and now - turned > TICK + self._late:
                told = turned
                # Then this thread could not run either.
                stopped = now - due > self._late
                _tell(_complaint(now - turned, stopped=stopped) + _where(self._watched, only_task=stopped))


def task_of(frame: FrameType) -> tuple[TaskMessage, int] | None:
    """The message whose run *frame* is a part of, and how many frames are above the one of the worker that knows it."""
    below: FrameType | None = frame
    depth = 0
    while below is not None:
        # Of the worker's frames only: reading the locals of a stranger may have effects of its own.
        if below.f_globals.get("__name__", "").startswith("chicory.worker.") and below.f_code.co_flags & _COROUTINE:
            message = below.f_locals.get("message")
            if isinstance(message, TaskMessage):
                return message, depth
        below = below.f_back
        depth += 1
    return None


# inspect.CO_COROUTINE, without inspect, which costs every worker a megabyte.
_COROUTINE = 0x80


def _where(thread: int | None, *, only_task: bool = False) -> str:
    """What *thread* does right now, and for which task; with *only_task* nothing when for none."""
    frame = None if thread is None else sys._current_frames().get(thread)  # pyright: ignore[reportPrivateUsage]
    if frame is None:
        return ""
    found = task_of(frame)
    if found is None:
        return "" if only_task else f", at\n{''.join(traceback.format_stack(frame)[-_DEEPEST:])}"
    whose, depth = found
    stack = "".join(traceback.format_stack(frame, depth)[-_DEEPEST:])
    return f"; it runs {whose.name} ({whose.id}), at\n{stack}"


def _complaint(seconds: float, *, stopped: bool) -> str:
    if stopped:
        return f"this process stood still for {seconds:.1f} s: it was stopped, or a C call held the interpreter"
    return f"the event loop has stood still for {seconds:.1f} s: a task holds it"


def _tell(text: str) -> None:
    message, _, stack = text.partition("\n")
    report = Report(message, stack) if stack else message
    teller = threading.Thread(target=log.error, args=(report,), daemon=True)
    teller.start()
    teller.join(_TELLING)
