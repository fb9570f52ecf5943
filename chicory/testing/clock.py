"""Clock: the time of a test."""

import math
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import final

import trio
from trio.testing import MockClock

from chicory.errors import UsageError
from chicory.links.executor import TRIO, on_this_thread
from chicory.types import timestamp

# Less than this is lost when seconds since 1970 are added up.
TICK = 1e-6


@final
class Clock:
    """The time that a test sees: delays, eta, expiry, retries and schedules are judged by it.

    It stands still until it is moved, by `advance` or by a drain.  Inside a trio run it goes on as that run's clock
    does: with pytest-trio's `autojump_clock` both are moved together, and so are sleeps and timeouts.

    start: what it shows at first; None is now, in whole seconds.
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._base = float(int(time.time())) if start is None else timestamp(start)
        # Another clock that this one goes on with, and what that one showed at *_base*.
        self._ridden: trio.abc.Clock | None = None
        self._since = 0.0
        self._lock = threading.RLock()
        self._listeners: list[Callable[[float], None]] = []

    def time(self) -> float:
        """Unix seconds."""
        with self._lock:
            self._ride()
            return self._base + self._passed()

    def now(self) -> datetime:
        """The same, in UTC."""
        return datetime.fromtimestamp(self.time(), UTC)

    def advance(self, seconds: float | timedelta) -> None:
        """Move the clock forward.  What has become due runs with the next drain, or by a worker that runs beside."""
        span = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        if not 0 <= span < math.inf:
            raise UsageError(f"a clock is moved forward by a number of seconds, not by {seconds}")
        with self._lock:
            self._ride()
            here = on_this_thread.name == TRIO and trio.lowlevel.current_clock() is self._ridden
            if here and isinstance(self._ridden, MockClock):
                self._ridden.jump(span)
            else:
                self._base += span
        for listener in self._listeners:
            listener(span)

    def reach(self, instant: float) -> None:
        """Move the clock forward until it shows *instant*, in unix seconds; it stays where it is when that is past."""
        if (missing := instant - self.time()) > 0:
            self.advance(missing)
        while self.time() < instant:
            self.advance(TICK)

    def on_advance(self, listener: Callable[[float], None]) -> None:
        """Have *listener* called with the seconds of each advance."""
        self._listeners.append(listener)

    def _passed(self) -> float:
        return 0.0 if self._ridden is None else self._ridden.current_time() - self._since

    def _ride(self) -> None:
        """Go on with the clock of the trio run that asks, if one does."""
        if on_this_thread.name == TRIO and (clock := trio.lowlevel.current_clock()) is not self._ridden:
            self._base += self._passed()
            self._ridden, self._since = clock, clock.current_time()

    def __repr__(self) -> str:
        return f"<clock {self.now().isoformat()}>"
