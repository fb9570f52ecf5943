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
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import trio

Run = Coroutine[Any, Any, None]

# Seconds that runs may follow one another before the rest of the worker has a turn.
_TURN = 0.005


class Runner:
    """Runs what it is given inside *nursery*; runs never raise.

    refill: called when a runner has nothing more to do or one of its runs has made room; it may `start` more.
    """

    def __init__(self, nursery: trio.Nursery, refill: Callable[[], None]) -> None:
        self._nursery = nursery
        self._refill = refill
        self._ready: deque[Run] = deque()
        self._about_to_run = False

    def start(self, run: Run) -> None:
        """*run* begins with the next turn of the event loop, or in this one if a runner is at work."""
        self._ready.append(run)
        self._see_to_it()

    def _see_to_it(self) -> None:
        if self._ready and not self._about_to_run:
            self._about_to_run = True
            self._nursery.start_soon(self._serve, name="chicory runner")

    # As for each run: Ctrl-C must reach whoever runs the worker.
    @trio.lowlevel.enable_ki_protection
    async def _serve(self) -> None:
        until = trio.current_time() + _TURN
        while trio.current_time() <= until:
            if not self._ready:
                self._refill()
                if not self._ready:
                    break
            if await _drive(self._ready.popleft(), self._hand_over):
                self._refill()
                return
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
