"""Everything the supervisor decides.  Pure: the clock and the dice are arguments, so that a test can be the system.

`step` first records what happened, then asks a few rules what that calls for.  Each action is also a change of state,
so nothing is asked for twice.
"""

from chicoryd.events import Event, Tick
from chicoryd.record import record
from chicoryd.roster import Fleet, Step, may_start, summary
from chicoryd.rules import RULES, STATUS_PAUSE, lose_patience


def step(fleet: Fleet, event: Event, now: float) -> Step:
    """The fleet after *event*, and what is to be done about it."""
    if fleet.over:
        return fleet, []
    fleet, actions = record(fleet, event, now)
    rules = (lose_patience, *RULES) if isinstance(event, Tick) else RULES
    for rule in rules:
        fleet, asked = rule(fleet, now)
        actions += asked
    return fleet, actions


def wake(fleet: Fleet) -> float | None:
    """When to send the next Tick; None when only an event can change anything."""
    if fleet.over:
        return None
    instants = [slot.due for slot in fleet.slots if slot.due is not None and (slot.up or may_start(fleet, slot))]
    if summary(fleet) != fleet.status_told:
        instants.append(fleet.status_at + STATUS_PAUSE)
    return min(instants, default=None)
