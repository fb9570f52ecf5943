"""Which tasks run, and for how long, as far as one can see from outside.

A task is first seen when somebody looks, so an age is short by up to the time between two looks.  In return a task that
is over before anybody looks costs nothing.
"""

from collections.abc import Sequence
from typing import Any

from chicory.brokers.base import Delivery
from chicory.worker.drain import identity


class Sight:
    """The tasks that were seen running, and since when."""

    def __init__(self) -> None:
        self._since: dict[Any, float] = {}

    def look(self, running: Sequence[Delivery], now: float) -> None:
        """*running* is what runs at *now*."""
        before = self._since
        self._since = {one.receipt: before.get(one.receipt, now) for one in running}

    def tell(self, running: Sequence[Delivery], now: float, most: int) -> list[dict[str, Any]]:
        """Id, name and age in seconds of *running*, the oldest *most* of them."""
        self.look(running, now)
        oldest = sorted(running, key=lambda one: self._since[one.receipt])[:most]
        return [{**identity(one), "age": round(now - self._since[one.receipt], 1)} for one in oldest]
