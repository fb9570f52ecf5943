"""Which slots of which schedules are over, in memory."""

from collections.abc import Sequence

import attrs

from chicory.brokers.memory.store import Store
from chicory.clock import unix_now
from chicory.links.executor import checkpoint
from chicory.schedules.entry import RETENTION, Entry, Known, Look
from chicory.types import TaskMessage
from chicory.wire import pack


@attrs.define
class Row:
    """What is remembered of one schedule; seen: when it was last named."""

    definition: str
    mark: float
    seen: float
    fired: float | None = None
    paused: bool = False


class MemoryTimetable:
    """See Timetable.  Every method waits first and acts in one step."""

    def __init__(self, store: Store, rows: dict[str, Row]) -> None:
        self._store = store
        self._rows = rows

    async def look(self, entries: Sequence[Entry], *, begin: bool = True) -> Look:
        """See Timetable."""
        await checkpoint()
        with self._store.lock:
            now = unix_now()
            if begin:
                for entry in entries:
                    self._row(entry).seen = now
                for name in [name for name, row in self._rows.items() if now - row.seen > RETENTION]:
                    del self._rows[name]
            return Look(
                now,
                {name: Known(row.definition, row.mark, row.fired, row.paused) for name, row in self._rows.items()},
            )

    async def fire(self, entry: Entry, slot: float, message: TaskMessage) -> bool:
        """See Timetable."""
        await checkpoint()
        with self._store.lock:
            now, row = unix_now(), self._rows.get(entry.name)
            if slot > now or (row is not None and (row.paused or slot <= row.mark)):
                return False
            published = self._store.publish(message, pack(message), None)
            row = self._row(entry)
            row.mark, row.fired, row.definition = slot, slot, entry.definition
            self._store.wake()
            return published

    async def pause(self, entry: Entry) -> bool:
        """See Timetable."""
        await checkpoint()
        with self._store.lock:
            row = self._row(entry)
            paused, row.paused = row.paused, True
            return not paused

    async def resume(self, entry: Entry) -> bool:
        """See Timetable."""
        await checkpoint()
        with self._store.lock:
            row, now = self._rows.get(entry.name), unix_now()
            if row is None:
                return False
            paused, row.paused = row.paused, False
            if paused or row.mark > now:
                row.mark = now
            return paused

    def _row(self, entry: Entry) -> Row:
        """The row of *entry*, which begins now when it is new."""
        now = unix_now()
        return self._rows.setdefault(entry.name, Row(entry.definition, now, now))
