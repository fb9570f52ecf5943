"""Which slots of which schedules are over, in memory."""

from collections.abc import Sequence

from chicory.brokers.memory.store import Store
from chicory.clock import unix_now
from chicory.links.executor import checkpoint
from chicory.schedules.entry import Entry, Look
from chicory.schedules.table import Table
from chicory.types import TaskMessage
from chicory.wire import pack


class MemoryTimetable:
    """See Timetable.  Every method waits first and acts in one step."""

    def __init__(self, store: Store, table: Table) -> None:
        self._store = store
        self._table = table

    async def look(self, entries: Sequence[Entry], *, begin: bool = True) -> Look:
        """See Timetable."""
        await checkpoint()
        with self._store.lock:
            now = unix_now()
            if begin:
                self._table.begin(entries, now)
            return Look(now, self._table.known())

    async def fire(self, entry: Entry, slot: float, message: TaskMessage) -> bool:
        """See Timetable."""
        await checkpoint()
        with self._store.lock:
            now = unix_now()
            if not self._table.ready(entry, slot, now):
                return False
            there = self._store.publish(message, pack(message), None)
            self._table.fire(entry, slot, now)
            self._store.wake()
            return there is None

    async def pause(self, entry: Entry) -> bool:
        """See Timetable."""
        await checkpoint()
        with self._store.lock:
            return self._table.pause(entry, unix_now())

    async def resume(self, entry: Entry) -> bool:
        """See Timetable."""
        await checkpoint()
        with self._store.lock:
            return self._table.resume(entry, unix_now())
