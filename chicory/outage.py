"""One outage of the broker as several loops see it: one line when it begins, one when it ends, waits that grow."""

import logging
import random
import time
from collections.abc import Callable

import attrs

from chicory.config import RabbitMQBrokerConfig, RedisBrokerConfig
from chicory.errors import BrokerError, BrokerRefused

log = logging.getLogger("chicory.broker")

# Whoever was refused (a wrong password) is refused again until somebody mends it.
REFUSED = 5.0


@attrs.frozen
class Pace:
    """How fast to try again.

    first, longest: seconds.  By default a task runs within two seconds of the broker's answering again, since nobody
    waits longer than one.
    """

    first: float = 0.02
    longest: float = 1.0

    @classmethod
    def of(cls, settings: RedisBrokerConfig | RabbitMQBrokerConfig) -> "Pace":
        """What *settings* say."""
        return cls(settings.reconnect_delay, settings.reconnect_max_delay)

    def wait(self, failures: int, draw: float) -> float:
        """Seconds to wait after *failures* in a row; *draw* is uniform in [0, 1)."""
        grown = self.first * 2 ** min(failures - 1, 30)
        return min(grown, self.longest) * (1 - 0.5 * draw)


class Outage:
    """One for all who use one broker; it lasts from the first failure until everybody has been answered.

    over: called when it has ended.
    """

    def __init__(self, pace: Pace | None = None, *, over: Callable[[], None] | None = None) -> None:
        self._pace = pace or Pace()
        self._failures: dict[str, int] = {}
        self._since = 0.0
        self._over = over

    @property
    def on(self) -> bool:
        """Whether somebody has not been answered."""
        return bool(self._failures)

    def failed(self, who: str, error: BrokerError) -> float:
        """Note that *who* met *error*; returns the seconds to wait before the next attempt.

        *who* must be somebody who asks again and again, or the outage never ends.
        """
        if not self._failures:
            self._since = time.monotonic()
            log.warning("the broker fails, trying on until it answers: %s", error)
        failures = self._failures[who] = self._failures.get(who, 0) + 1
        if isinstance(error, BrokerRefused):
            return max(REFUSED, self._pace.longest) * (1 - 0.5 * random.random())
        return self._pace.wait(failures, random.random())

    def answered(self, who: str) -> None:
        """Note that *who* was answered."""
        if not self._failures or self._failures.pop(who, None) is None or self._failures:
            return
        log.warning("the broker answers again, after %.1f s", time.monotonic() - self._since)
        if self._over is not None:
            self._over()
