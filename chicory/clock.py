"""Unix seconds, in a trio run by its clock: steady while the run lasts, and virtual where the run's clock is."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import trio
from trio.lowlevel import RunVar

_epoch: RunVar[float] = RunVar("chicory_epoch")
_virtual: Callable[[], float] | None = None


def unix_now() -> float:
    """Seconds since the epoch, as trio's clock counts them; outside of trio, by the wall clock.

    The wall clock is read once in each run, so everything in a run agrees, nobody's correction of the host's clock
    moves a due time, and a test on `MockClock` can wait for years.
    """
    if _virtual is not None:
        return _virtual()
    try:
        epoch = _epoch.get()
    except RuntimeError:  # outside of trio
        return time.time()
    except LookupError:
        epoch = time.time() - trio.current_time()
        _epoch.set(epoch)
    return epoch + trio.current_time()


@contextmanager
def asking(clock: Callable[[], float]) -> Generator[None]:
    """Have *clock* tell the time in the whole process, in every thread and run, while the block lasts; for tests."""
    global _virtual
    before, _virtual = _virtual, clock
    try:
        yield
    finally:
        _virtual = before
