"""What tasks wrote down, and what follows from it.  Pure but for reading the file."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import attrs

from benchmarks.figures import percentile
from benchmarks.peers.programs.work import ENDED, RECORD, STARTED

# So young an end may not have reached the broker when its worker is killed: such a task counts as in flight.
SETTLING = 0.1
_NANO = 1e9


class Event(NamedTuple):
    """One record: a task's number, its process, whether it started or ended, and monotonic seconds."""

    number: int
    pid: int
    kind: int
    at: float


def parse(data: bytes) -> list[Event]:
    """All whole records of *data*."""
    whole = len(data) - len(data) % RECORD.size
    return [Event(number, pid, kind, at / _NANO) for number, pid, kind, at in RECORD.iter_unpack(data[:whole])]


def read(path: Path) -> list[Event]:
    """What is in the file so far."""
    return parse(path.read_bytes()) if path.exists() else []


def ends(events: Sequence[Event]) -> list[Event]:
    """Only where tasks ended."""
    return [event for event in events if event.kind == ENDED]


def lost(events: Sequence[Event], count: int) -> int:
    """How many of the tasks 0 to *count* - 1 never ended."""
    return count - len({event.number for event in ends(events) if event.number < count})


def twice(events: Sequence[Event]) -> int:
    """How many ended more than once."""
    return sum(times > 1 for times in Counter(event.number for event in ends(events)).values())


def rate(events: Sequence[Event]) -> float:
    """Tasks per second from the moment at which all processes are at work to the last end.

    So start-up is left out, and the last stretch, when work runs short, is in.  Where a process has come so late that
    less than half of the tasks were left to be measured, it is from the first end.
    """
    ordered = sorted(event.at for event in ends(events))
    if len(ordered) < 2:
        return 0.0
    first: dict[int, float] = {}
    for event in events:
        first[event.pid] = min(event.at, first.get(event.pid, event.at))
    begin = max(first.values())
    later = [at for at in ordered if at > begin]
    if len(later) < len(ordered) / 2:
        begin, later = ordered[0], ordered[1:]
    return len(later) / (ordered[-1] - begin)


def latencies(events: Sequence[Event], sent: Sequence[int]) -> list[float]:
    """Seconds from each of *sent*, the nanoseconds of tasks 1 and up, to its first end."""
    first: dict[int, float] = {}
    for event in events:
        first[event.number] = min(event.at, first.get(event.number, event.at))
    return [first[number] - at / _NANO for number, at in enumerate(sent, 1) if number in first]


@attrs.frozen
class Lateness:
    """Of tasks due at one instant: seconds to the first, to 99 of 100 and to the last, and how many were early."""

    first: float
    p99: float
    last: float
    early: int


def lateness(events: Sequence[Event], due: float) -> Lateness | None:
    """How late tasks were that were due at *due*, of the clock of the records; None where none ran."""
    late = [event.at - due for event in ends(events)]
    if not late:
        return None
    return Lateness(min(late), percentile(late, 0.99), max(late), sum(one < 0 for one in late))


@attrs.frozen
class Recovery:
    """What a kill did to tasks.

    held: how many the victims had started and not ended.
    back: seconds from the kill to the end of the last of them; None while one of them has not ended.
    unprovoked: how many ran again though they had ended long enough before the kill, or were not the victims'.
    """

    held: int
    back: float | None
    unprovoked: int


def recovery(events: Sequence[Event], killed: float, victims: set[int]) -> Recovery:
    """What happened to the tasks of *victims*, processes that were killed at *killed*."""
    finished = {event.number for event in events if event.kind == ENDED and event.pid in victims}
    held = {event.number for event in events if event.kind == STARTED and event.pid in victims} - finished
    # The first end of each elsewhere.
    again: dict[int, float] = {}
    for event in events:
        if event.kind == ENDED and event.number in held:
            again[event.number] = min(event.at, again.get(event.number, event.at))
    back = max((at - killed for at in again.values()), default=0.0) if len(again) == len(held) else None
    return Recovery(len(held), back, sum(_unprovoked(runs, killed, victims) for runs in _runs(events).values()))


def _runs(events: Sequence[Event]) -> dict[int, list[Event]]:
    """The ends of each task that has more than one, in order."""
    runs: dict[int, list[Event]] = {}
    for event in sorted(ends(events), key=lambda event: event.at):
        runs.setdefault(event.number, []).append(event)
    return {number: times for number, times in runs.items() if len(times) > 1}


def _unprovoked(runs: Sequence[Event], killed: float, victims: set[int]) -> bool:
    first = runs[0]
    return len(runs) > 2 or first.pid not in victims or first.at < killed - SETTLING
