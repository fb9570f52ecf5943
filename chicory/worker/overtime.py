"""Abandons runs that do not end although their time is over, so that their places go to others.

A run is cancelled at its timeout, and most end then.  A thread that never looks does not, nor does a clean-up that
hangs behind a shield; such a run goes on for as long as it likes, and nobody listens to it any more.
"""

import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any, final

import trio

from chicory.types import TaskMessage
from chicory.worker.runner import Ongoing

log = logging.getLogger("chicory.worker")

# Seconds from one look to the next, at least.
TICK = 0.1
# Abandoned runs that may go on at once, where a worker has fewer places than that.
FEW = 10


def overdue(ends: Mapping[Any, float], grace: float, now: float) -> tuple[list[Any], float]:
    """Which runs to abandon at *now*, those first whose time was over first, and when to look again.  Pure.

    ends: when the time of each run that has a timeout is or was over.
    A run that begins after *now* is not overdue before *grace* has passed, so nothing is kept of when runs begin and
    end: the next look is early enough for all of them.
    """
    late = sorted((receipt for receipt, end in ends.items() if end + grace <= now), key=ends.__getitem__)
    again = min((end + grace for end in ends.values() if end + grace > now), default=float("inf"))
    return late, max(min(again, now + grace), now + TICK)


@final
class Overtime:
    """Of the runs of one lease.

    limit: seconds that a run of a message may take, None for any number.
    abandon: has others take the place of a run.
    most: abandoned runs that may go on at once; beyond that runs keep their places, and the worker is worn.
    """

    def __init__(
        self,
        ongoing: dict[Any, Ongoing],
        *,
        limit: Callable[[TaskMessage], float | None],
        abandon: Callable[[Ongoing], None],
        grace: float,
        most: int,
    ) -> None:
        # Those that still go on, by receipt.
        self.abandoned: dict[Any, Ongoing] = {}
        self._ongoing = ongoing
        self._limit = limit
        self._abandon = abandon
        self._grace = grace
        self._most = most

    @property
    def worn(self) -> bool:
        """Whether so many abandoned runs go on that it takes a fresh process."""
        return len(self.abandoned) >= self._most

    def clear(self) -> None:
        """Nothing begins any more, so that any number may be abandoned."""
        self._most = sys.maxsize

    async def run(self) -> None:
        """Abandon what is overdue, until cancelled."""
        while True:
            late, again = overdue(self._ends(), self._grace, trio.current_time())
            for receipt in late[: self._most - len(self.abandoned)]:
                self._give_up(receipt)
            await trio.sleep_until(again)

    def over(self, receipt: Any) -> bool:
        """Whether this run, which has ended, was abandoned: then it has been concluded, and its end means nothing."""
        run = self.abandoned.pop(receipt, None)
        if run is None:
            return False
        log.warning("%s (%s), which was abandoned, has ended after %.1f s", *_told(run))
        return True

    def _ends(self) -> dict[Any, float]:
        limits = {receipt: self._limit(run.message) for receipt, run in self._ongoing.items()}
        return {receipt: self._ongoing[receipt].since + limit for receipt, limit in limits.items() if limit is not None}

    def _give_up(self, receipt: Any) -> None:
        run = self.abandoned[receipt] = self._ongoing.pop(receipt)
        log.error(
            "%s (%s) has run for %.1f s and does not end %g s after its timeout although it was cancelled; it is "
            "abandoned, and its place goes to others",
            *_told(run),
            self._grace,
        )
        if self.worn:
            log.error("%d abandoned runs go on; it takes a fresh worker to abandon more", len(self.abandoned))
        self._abandon(run)


def _told(run: Ongoing) -> tuple[str, str, float]:
    return run.message.name, run.message.id, trio.current_time() - run.since
