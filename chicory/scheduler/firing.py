"""Firing: sends what the schedules of an app are to send, when it is due.

Any number may run at once.  Each asks the broker which slots are over, decides for itself what is due, and fires that;
of those who fire one slot the broker lets one through.  So it does not matter which of them is killed, and when.
"""

import logging
from typing import final

import trio

from chicory.app import Chicory
from chicory.brokers.base import Timetable
from chicory.errors import BrokerError, QueueFull, UsageError
from chicory.groups import sole
from chicory.outage import Outage
from chicory.scheduler.pacing import next_look
from chicory.schedules.entry import Entry, Known, Look
from chicory.schedules.schedule import SLOT, Schedule
from chicory.schedules.slots import due

log = logging.getLogger("chicory.scheduler")

# Seconds until a slot that cannot be fired now is tried again.
_LATER = 1.0
# Seconds that a mark may be ahead of the broker's clock before somebody is told.
_AHEAD = 3600.0


@final
class Firing:
    """Fires the schedules that *app* has when this is made.  outage: shared with all who use the broker.

    entries: the schedules as the broker sees them.
    """

    def __init__(self, app: Chicory, outage: Outage) -> None:
        self._app = app
        self._outage = outage
        self._schedules = [(schedule, schedule.entry) for schedule in app.schedules.values()]
        self.entries = [entry for _, entry in self._schedules]
        self._since: float | None = None
        self._told: set[str] = set()

    async def run(self) -> None:
        """Fire until cancelled."""
        if not self._schedules:
            return
        timetable = self._app.broker.timetable()
        if timetable is None:
            names = ", ".join(self._app.schedules)
            log.error("this broker cannot fire schedules (%s); use another one for them", names)
            return
        while True:
            try:
                look = await self.look(timetable)
                # From when the answer is here, so that the next look is a little late and not too early.
                asked = trio.current_time()
                slot = await self.fire(timetable, look)
                wait = next_look(slot - look.now - (trio.current_time() - asked))
                self._outage.answered("fire")
            except (BrokerError, ExceptionGroup) as error:
                cause = sole(error)
                if not isinstance(cause, BrokerError):
                    raise
                wait = self._outage.failed("fire", cause)
            await trio.sleep(wait)

    async def look(self, timetable: Timetable) -> Look:
        """Which slots are over."""
        look = await timetable.look(self.entries)
        if self._since is None:
            self._since = look.now
        return look

    async def fire(self, timetable: Timetable, look: Look) -> float:
        """Fire what *look* shows to be due; returns the instant to look again, by the broker's clock.

        That is the next slot; or sooner, when not all that is due could be fired.
        """
        return min([await self._fire(timetable, look, schedule, entry) for schedule, entry in self._schedules])

    async def _fire(self, timetable: Timetable, look: Look, schedule: Schedule, entry: Entry) -> float:
        """`fire` for one schedule."""
        known = look.known[entry.name]
        if known.paused:
            return schedule.timing.after(look.now)
        plan = due(schedule.timing, self._mark(known, entry, look.now), look.now, schedule.misfire)
        for slot in plan.slots:
            try:
                await self._send(timetable, schedule, entry, slot)
            except (QueueFull, UsageError) as error:
                # Of the second kind only when what it sends was changed after it was checked.
                self._tell(entry.name, str(error))
                return look.now + _LATER
            self._told.discard(entry.name)
        return plan.next

    async def _send(self, timetable: Timetable, schedule: Schedule, entry: Entry, slot: float) -> None:
        message = schedule.message(slot)
        backend = self._app.backend
        # A joined broker notes it itself.  Noted first: a task may be finished before it is known here to be sent.
        if backend is not None and not self._app.joined and not message.ignore_result:
            await backend.expect([message.id])
        if await timetable.fire(entry, slot, message):
            log.info("schedule %s sent %s for %s", entry.name, message.id, message.headers[SLOT])

    def _mark(self, known: Known, entry: Entry, now: float) -> float:
        """The instant up to which the schedule's slots are over."""
        if known.mark > now + _AHEAD:
            remedy = f"its clock was set back? chicory schedule resume {entry.name} begins again at once"
            self._tell(entry.name, f"it has fired for later than the broker's clock says ({remedy})")
        if known.definition == entry.definition or self._since is None:
            return known.mark
        # Fired last by another version of the code: slots that this one would have had before it began were not missed.
        return max(known.mark, self._since)

    def _tell(self, name: str, what: str) -> None:
        """Warn, once until it is over."""
        if name not in self._told:
            self._told.add(name)
            log.warning("schedule %s waits: %s", name, what)
