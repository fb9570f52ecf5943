"""The scheduler's part in a drain: what the app's schedules send as the clock passes their slots."""

import math
from typing import final

import trio

from chicory.app import Chicory
from chicory.outage import Outage
from chicory.scheduler.firing import Firing
from chicory.testing.broker import ObservedBroker
from chicory.testing.clock import Clock


@final
class Slots:
    """Those of *app* up to *until*, in unix seconds; when that is infinite there are none, or they would never end.

    since: when they began; slots from then on that no drain has let pass were missed.
    queues: where they send to.  next: the instant of the next one.
    """

    def __init__(self, app: Chicory, broker: ObservedBroker, clock: Clock, *, since: float, until: float) -> None:
        self._clock = clock
        self._until = until
        self._timetable = broker.timetable()
        self._firing = Firing(app, Outage()) if app.schedules and until < math.inf else None
        entries = [] if self._firing is None else self._firing.entries
        broker.begin(entries, since)
        self.queues = {entry.queue for entry in entries}
        # Until somebody looks there may be one already.
        self.next = math.inf if self._firing is None else -math.inf

    @property
    def left(self) -> bool:
        """Whether there may be another one."""
        return self._firing is not None and self.next <= self._until

    async def fire(self) -> None:
        """Send what is due now, and see when the next is."""
        if self._firing is not None and self.left:
            self.next = await self._firing.fire(self._timetable, await self._firing.look(self._timetable))

    async def keep_firing(self) -> None:
        """Send what falls due while the clock goes on by itself; returns when none is left."""
        while self.left:
            await trio.sleep(max(0.0, self.next - self._clock.time()))
            await self.fire()
