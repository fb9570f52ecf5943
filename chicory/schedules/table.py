"""Table: what is remembered of schedules, where a broker has nothing better than to remember it whole.  Pure."""

from collections.abc import Sequence

import msgspec

from chicory.schedules.entry import NOTED_EVERY, RETENTION, Entry, Known


class Row(msgspec.Struct):
    """What is remembered of one schedule; seen: when it was last noted that somebody named it."""

    definition: str
    mark: float
    seen: float
    fired: float | None = None
    paused: bool = False


class Table(msgspec.Struct):
    """The schedules by name.  What its methods mean says `brokers.base.Timetable`; *now* is the broker's time."""

    rows: dict[str, Row] = msgspec.field(default_factory=dict[str, Row])

    def begin(self, entries: Sequence[Entry], now: float) -> None:
        """Note that *entries* were named."""
        for entry in entries:
            row = self._row(entry, now)
            if now - row.seen >= NOTED_EVERY:
                row.seen = now
        for name in [name for name, row in self.rows.items() if now - row.seen > RETENTION] if entries else ():
            del self.rows[name]

    def known(self) -> dict[str, Known]:
        """What a look shows."""
        return {name: Known(row.definition, row.mark, row.fired, row.paused) for name, row in self.rows.items()}

    def ready(self, entry: Entry, slot: float, now: float) -> bool:
        """Whether *slot* is to be fired when somebody wants to."""
        row = self.rows.get(entry.name)
        return slot <= now and (row is None or (not row.paused and slot > row.mark))

    def fire(self, entry: Entry, slot: float, now: float) -> None:
        """Set the mark to *slot*."""
        row = self._row(entry, now)
        row.mark = row.fired = slot
        row.definition = entry.definition

    def pause(self, entry: Entry, now: float) -> bool:
        """Whether it went on until now."""
        row = self._row(entry, now)
        paused, row.paused = row.paused, True
        return not paused

    def resume(self, entry: Entry, now: float) -> bool:
        """Whether it was paused until now."""
        row = self.rows.get(entry.name)
        if row is None:
            return False
        paused, row.paused = row.paused, False
        if paused or row.mark > now:
            row.mark = now
        return paused

    def _row(self, entry: Entry, now: float) -> Row:
        """The row of *entry*, which begins now when it is new."""
        return self.rows.setdefault(entry.name, Row(entry.definition, now, now))
