"""Cancels an operation each time it waits, one place after the other."""

from collections.abc import AsyncIterator, Awaitable, Callable

import trio


class _CancelWhenParked(trio.abc.Instrument):
    """Cancels *scope* when *task* waits for the *turn*-th time, at that very place."""

    def __init__(self, task: trio.lowlevel.Task, scope: trio.CancelScope, turn: int) -> None:
        self._task = task
        self._scope = scope
        self.left = turn

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task and self.left > 0:
            self.left -= 1
            if self.left == 0:
                self._scope.cancel()


async def cancelled_at(turn: int, operation: Callable[[], Awaitable[object]]) -> bool:
    """Run *operation* and cancel it when it waits for the *turn*-th time; False when it never waited so often."""
    with trio.CancelScope() as scope:
        instrument = _CancelWhenParked(trio.lowlevel.current_task(), scope, turn)
        trio.lowlevel.add_instrument(instrument)
        try:
            await operation()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return instrument.left == 0


async def every_checkpoint(attempt: Callable[[int], Awaitable[bool]]) -> AsyncIterator[int]:
    """Call *attempt* with 1, 2, ... for as long as it tells that it was cancelled; yields after each."""
    for turn in range(1, 200):
        again = await attempt(turn)
        yield turn
        if not again:
            return
    raise AssertionError("an operation that waits two hundred times never ends")
