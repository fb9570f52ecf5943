"""One outage of the broker as several loops see it: one line when it begins, one when it ends, waits that grow."""

import logging
import random
import time
from collections.abc import Callable

from chicory.errors import BrokerError, BrokerRefused

log = logging.getLogger("chicory.broker")

# A task is to run within two seconds of the broker's answering again, so nobody waits longer than one.
LONGEST = 1.0
SHORTEST = 0.02
# Whoever was refused (a wrong password) is refused again until somebody mends it.
REFUSED = 5.0


def wait(failures: int, draw: float) -> float:
    """Seconds to wait after *failures* in a row; *draw* is uniform in [0, 1)."""
    grown = SHORTEST * 2 ** min(failures - 1, 16)
    return min(grown, LONGEST) * (1 - 0.5 * draw)


class Outage:
    """One for all who use one broker; it lasts from the first failure until everybody has been answered.

    over: called when it has ended.
    """

    def __init__(self, over: Callable[[], None] | None = None) -> None:
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
            return REFUSED * (1 - 0.5 * random.random())
        return wait(failures, random.random())

    def answered(self, who: str) -> None:
        """Note that *who* was answered."""
        if not self._failures or self._failures.pop(who, None) is None or self._failures:
            return
        log.warning("the broker answers again, after %.1f s", time.monotonic() - self._since)
        if self._over is not None:
            self._over()
