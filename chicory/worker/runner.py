"""Runs coroutines one after another in one trio task, for as long as none of them has to wait.

Starting a trio task costs five microseconds, and most short tasks end before they ever wait for anything.  So a runner
takes run after run; when one waits, the runner stays with it, as its trio task, and another runner goes on with the
rest.  To a run there is no difference: it has a trio task to itself from the first time it waits, and context
variables of its own from the start.
"""

import contextvars
import functools
import types
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Generator
from typing import Any

import msgspec
import trio

from chicory.brokers.base import Delivery
from chicory.types import TaskMessage

Run = Coroutine[Any, Any, None]


class Started(msgspec.Struct, frozen=True):
    """A run that is to begin, or has begun *at* that instant, in unix seconds by the broker's clock."""

    run: Run
    delivery: Delivery
    message: TaskMessage
    at: float


class Ongoing(msgspec.Struct, frozen=True):
    """A run that has waited for something, and so has a trio task to itself.

    started_at: unix seconds by the broker's clock.  since: the same by trio's, which nobody sets.
    scope: around all of it; cancelling that cancels this run alone.
    """

    delivery: Delivery
    message: TaskMessage
    started_at: float
    since: float
    scope: trio.CancelScope


# Seconds that runs may follow one another before the rest of the worker has a turn.
_TURN = 0.005


class Runner:
    """Runs what it is given inside *nursery*; runs never raise.

    ongoing: where runs that have waited are found, by receipt, until they end or somebody takes them out.
    cancelled: ids of tasks that somebody has cancelled; whoever adds one looks for runs of it among the ongoing.
    refill: called when a runner has nothing more to do or one of its runs has made room; it may `start` more.
    context: what each run begins with a copy of.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        ongoing: dict[Any, Ongoing],
        cancelled: Collection[str],
        refill: Callable[[], None],
        context: contextvars.Context,
    ) -> None:
        self._nursery = nursery
        self._cancelled = cancelled
        self._ongoing = ongoing
        self._refill = refill
        self._context = context
        self._ready: deque[Started] = deque()
        # The run at work, and the scope it is in.
        self._started: Started | None = None
        self._scope: trio.CancelScope | None = None
        self._since = 0.0
        self._about_to_run = False

    def start(self, started: Started) -> None:
        """The run begins with the next turn of the event loop, or in this one if a runner is at work."""
        self._ready.append(started)
        self._see_to_it()

    def _see_to_it(self) -> None:
        if self._ready and not self._about_to_run:
            self._about_to_run = True
            # Whoever calls may be in the context of a run that has waited, and a trio task begins with its starter's.
            self._context.run(self._nursery.start_soon, self._serve, name="chicory runner")

    # As for each run: Ctrl-C must reach whoever runs the worker.
    @trio.lowlevel.enable_ki_protection
    async def _serve(self) -> None:
        until = trio.current_time() + _TURN
        # A scope for each run would cost it two microseconds.  This one is there before any run is, and as nobody else
        # gets a turn while runs follow one another, whoever finds it finds it with the one run that has waited.
        with trio.CancelScope() as scope:
            while (now := trio.current_time()) <= until:
                if not self._ready:
                    self._refill()
                    if not self._ready:
                        break
                started = self._started = self._ready.popleft()
                self._scope, self._since = scope, now
                if await _drive(started.run, self._waits):
                    self._ongoing.pop(started.delivery.receipt, None)
                    self._refill()
                    return
        self._hand_over()

    def _waits(self) -> None:
        """The run at work waits for the first time."""
        started, scope = self._started, self._scope
        assert started is not None
        assert scope is not None
        ongoing = Ongoing(started.delivery, started.message, started.at, self._since, scope)
        self._ongoing[started.delivery.receipt] = ongoing
        if self._cancelled and started.message.id in self._cancelled:
            scope.cancel()
        self._hand_over()

    def _hand_over(self) -> None:
        self._about_to_run = False
        if not self._ready:
            self._refill()
        self._see_to_it()


@types.coroutine
def _drive(run: Run, waits: Callable[[], None]) -> Generator[Any, Any, bool]:
    """Drive *run* to its end; call *waits* when it waits for the first time.  Returns whether it did."""
    context = contextvars.copy_context()
    try:
        trap = context.run(run.send, None)
    except StopIteration:
        return False
    waits()
    # The run is in a context of its own; trio resumes this task, and so the run, in that one from now on.
    trio.lowlevel.current_task().context = context
    while True:
        try:
            step = functools.partial(run.send, (yield trap))
        except BaseException as error:
            step = functools.partial(run.throw, error)
        try:
            trap = step()
        except StopIteration:
            return True
