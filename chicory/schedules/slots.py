"""Which slots of a schedule are to be fired now, and when there is another one.  Pure."""

from typing import Literal

import attrs

from chicory.schedules.timing import Timing

# What becomes of slots that passed while nobody fired them.
Misfire = Literal["skip", "once", "all"]

# Seconds a slot may be late and still be on time: a scheduler that is being replaced costs no slot.
ON_TIME = 60.0
# Slots of one schedule that are fired before the other schedules have their turn.
BATCH = 256


@attrs.frozen
class Due:
    """The slots to fire now, oldest first, and the instant of the next after them; there are more when it is past."""

    slots: tuple[float, ...]
    next: float


def due(timing: Timing, mark: float, now: float, misfire: Misfire) -> Due:
    """What a schedule has to do at *now*, by the broker's clock, when every slot up to *mark* is over.

    misfire: "all" fires each slot, at most BATCH of them at a time; "once" fires the newest, which stands for all
        before it; "skip" does so too, unless even that one is more than ON_TIME late.
    A clock that was set back makes it wait until its mark is past: no slot comes twice.
    """
    first = timing.after(mark)
    if first > now:
        return Due((), first)
    if misfire == "all":
        slots = [first]
        while (following := timing.after(slots[-1])) <= now and len(slots) < BATCH:
            slots.append(following)
        return Due(tuple(slots), following)
    newest, following = _newest(timing, first, now)
    late = misfire == "skip" and now - newest > ON_TIME
    return Due(() if late else (newest,), following)


def _newest(timing: Timing, slot: float, now: float) -> tuple[float, float]:
    """The last slot that is not later than *now*, and the one after it; *slot* is one of them.

    By halving: a schedule of one slot a second that rested for a year has passed 31 million.
    """
    beyond = now
    while (following := timing.after(slot)) <= now:
        middle = (slot + beyond) / 2
        found = timing.after(middle)
        if found > now:
            beyond, found = middle, following
        slot = max(following, found)
    return slot, following
