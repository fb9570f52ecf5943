"""Cron and Every: the instants, called slots, at which a schedule fires.  Pure.

Slots are unix seconds and depend on nothing but the timing: whoever asks, and from whichever instant, sees the same
ones.  So any number of schedulers agree on them without a word, before and after a restart.
"""

import math
from datetime import UTC, datetime, tzinfo
from typing import Protocol

import attrs

from chicory.errors import ScheduleError, did_you_mean

# Seconds from one slot of an interval to the next, at least and at most: a second is what cron lines can say too.
SHORTEST = 1.0
LONGEST = 366 * 86400.0

_LONGEST_LINE = 200
_EXAMPLE = "such as '*/15 9-17 * * MON-FRI'"
# What cronsim calls the fields, and what may stand in them.
_FIELDS = {
    "second": "0-59",
    "minute": "0-59",
    "hour": "0-23",
    "day-of-month": "1-31, L for the last day or LW for the last weekday, and a day that one of the months has",
    "month": "1-12 or JAN-DEC",
    "day-of-week": "0-7 or SUN-SAT, 5L for the last Friday, 1#2 for the second Monday",
}


class Timing(Protocol):
    """An endless row of slots."""

    def after(self, instant: float) -> float:
        """The first slot later than *instant*."""
        ...

    def local(self, slot: float) -> datetime:
        """*slot* by the clock on the wall that the timing goes by."""
        ...

    def __str__(self) -> str:
        """What it says, in the words of who wrote it; two timings that differ say different things."""
        ...


@attrs.frozen
class Every:
    """Each multiple of *seconds* since the epoch: of 30, :00 and :30 of each minute; of a day, midnight in UTC."""

    seconds: float

    def __attrs_post_init__(self) -> None:
        # Written so that NaN, which compares false with everything, is refused too.
        if not SHORTEST <= self.seconds <= LONGEST:
            raise ScheduleError(
                f"an interval of {self.seconds} s is out of range;"
                f" give one from {SHORTEST:g} s to {LONGEST / 86400:g} days"
            )

    def after(self, instant: float) -> float:
        """See Timing.  Counted in whole milliseconds, so that no error adds up over the years."""
        step = round(self.seconds * 1000)
        slot = math.floor(instant * 1000) // step * step
        # Mostly one step; the product may have been rounded up to a slot that is still to come.
        while slot / 1000 <= instant:
            slot += step
        return slot / 1000

    def local(self, slot: float) -> datetime:
        """See Timing."""
        return datetime.fromtimestamp(slot, UTC)

    def __str__(self) -> str:
        return f"every {round(self.seconds, 3):.15g} s"


@attrs.frozen
class Cron:
    """Each instant that the cron line *line* names in the time zone *tz*.

    Where the clocks change it does what Debian's cron does.  A line with a fixed minute and hour fires once on each of
    its days: in the hour that comes twice at the first, and at the end of a gap that its time falls into.  One whose
    minute or hour begins with a star goes by the time that really passes: through both hours, and not in a gap.
    """

    line: str
    tz: str = "UTC"
    _zone: tzinfo = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_zone", _zone(self.tz))
        _check(self.line)

    def after(self, instant: float) -> float:
        """See Timing."""
        found = self._search(instant)
        assert found is not None, f"{self} fired once and never again"
        return found

    def local(self, slot: float) -> datetime:
        """See Timing."""
        return datetime.fromtimestamp(slot, self._zone)

    def explain(self) -> str:
        """The line in English."""
        from cronsim import CronSim

        return CronSim(self.line, datetime(2000, 1, 1, tzinfo=UTC)).explain()

    def __str__(self) -> str:
        return f"cron {' '.join(self.line.split())} {self.tz}"

    def _search(self, instant: float) -> float | None:
        from cronsim import CronSim

        # Whole seconds: rounding up could skip a slot, and what is not later than the instant is left out below.
        slots = CronSim(self.line, datetime.fromtimestamp(math.floor(instant), self._zone))
        # Asked from the second of two equal hours, the first comes back once more.
        while (found := next(slots, None)) is not None:
            slot = found.timestamp()
            real = datetime.fromtimestamp(slot, self._zone)
            if real.replace(tzinfo=None) != found.replace(tzinfo=None):
                # A day that begins in a gap was taken to begin at midnight all the same: look at what there is.
                slots = CronSim(self.line, datetime.fromtimestamp(slot - 1, self._zone))
            elif slot > instant:
                begins = [begin - 1 for begin in self._skipped(real) if begin - 1 > instant]
                return min([slot, *(sooner for begin in begins if (sooner := self._search(begin)) is not None)])
        return None

    def _skipped(self, found: datetime) -> list[float]:
        """Instants from which on there may be slots before *found* that cronsim does not see."""
        # Where the clocks change by half an hour, its steps of an hour may have begun amid this one.
        skipped = [found.replace(minute=0, second=0).timestamp()]
        # Where they change at midnight, the steps begin at an hour that there is not, and pass over the first there is.
        midnight = found.replace(hour=0, minute=0, second=0).timestamp()
        if datetime.fromtimestamp(midnight, self._zone).hour:
            skipped.append(midnight)
        return skipped


def _zone(name: str) -> tzinfo:
    from zoneinfo import ZoneInfo, available_timezones

    # Known also where there is no database of time zones.
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    # Besides what does not exist, there are names that are directories or lead out of the database.
    except (KeyError, ValueError, OSError, TypeError):
        known = available_timezones()
        if not known:
            raise ScheduleError(
                f"this machine has no database of time zones to find {name!r} in; install it with: pip install tzdata"
            ) from None
        raise ScheduleError(
            f"there is no time zone {name!r:.80}{did_you_mean(str(name), known)}"
            " Write a name like 'Europe/Rome' or 'UTC'"
        ) from None


def _check(line: str) -> None:
    """Raise ScheduleError unless *line* is a cron line that will ever fire."""
    from cronsim import CronSim, CronSimError

    if not isinstance(line, str) or len(line) > _LONGEST_LINE:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ScheduleError(f"a cron line is a str of at most {_LONGEST_LINE} characters, {_EXAMPLE}")
    told = " ".join(line.split())
    fields = len(line.split())
    if fields not in (5, 6):
        raise ScheduleError(
            f"cron line {told!r} has {fields} field{'s' * (fields != 1)}; write five, or six with seconds first:"
            f" minute hour day-of-month month day-of-week, {_EXAMPLE}"
        )
    try:
        fires = next(CronSim(line, datetime(2000, 1, 1, tzinfo=UTC)), None) is not None
    except (CronSimError, ValueError, AssertionError) as error:
        field = str(error).removeprefix("Bad ")
        allowed = _FIELDS.get(field, "numbers")
        raise ScheduleError(
            f"cron line {told!r} has a bad {field if field in _FIELDS else 'field'};"
            f" write *, {allowed}, with ranges a-b, lists a,b and steps */n"
        ) from None
    if not fires:
        raise ScheduleError(f"cron line {told!r} never fires; give a day-of-month that one of its months has")
