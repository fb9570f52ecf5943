"""Unix seconds: by a trio run's clock, which is steady while the run lasts or virtual, or as the host says."""

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


def wall_now() -> float:
    """Seconds since the epoch by the host's clock, with all that corrects it and also after the host slept."""
    return time.time() if _virtual is None else _virtual()


@contextmanager
def asking(clock: Callable[[], float]) -> Generator[None]:
    """Have *clock* tell the time in the whole process, in every thread and run, while the block lasts; for tests."""
    global _virtual
    before, _virtual = _virtual, clock
    try:
        yield
    finally:
        _virtual = before
