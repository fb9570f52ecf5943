"""A schedule as a broker sees it, and what the broker remembers of it.  Instants are unix seconds by its clock."""

import msgspec

# Seconds after which a broker may forget a schedule that no scheduler has named.
RETENTION = 30 * 86400.0
# Seconds between two notes that a schedule was named: a look that changes nothing writes nothing.
NOTED_EVERY = 3600.0


class Entry(msgspec.Struct, frozen=True):
    """What a scheduler tells.  queue: what it sends goes there.  definition: its timing, in words."""

    name: str
    queue: str
    definition: str


class Known(msgspec.Struct, frozen=True):
    """What is remembered.

    definition: of the schedule by which the mark was set.
    mark: every slot up to it is over; before the first is fired, when the schedule was begun.
    fired: the last slot that was fired; None: none was.
    """

    definition: str
    mark: float
    fired: float | None = None
    paused: bool = False


class Look(msgspec.Struct, frozen=True):
    """The broker's time, and all that it remembers, by name."""

    now: float
    known: dict[str, Known]
