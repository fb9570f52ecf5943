"""Everything the supervisor decides.  Pure: the clock and the dice are arguments, so that a test can be the system.

`step` first records what happened, then asks a few rules what that calls for.  Each action is also a change of state,
so nothing is asked for twice.
"""

from chicoryd.events import Event, Tick
from chicoryd.patience import ask_for_time, keep_the_watchdog, lose_patience, wake
from chicoryd.record import record
from chicoryd.roster import Fleet, Step
from chicoryd.rules import RULES

__all__ = ["step", "wake"]

_ON_TICK = (lose_patience, *RULES, keep_the_watchdog, ask_for_time)


def step(fleet: Fleet, event: Event, now: float) -> Step:
    """The fleet after *event*, and what is to be done about it."""
    if fleet.over:
        return fleet, []
    fleet, actions = record(fleet, event, now)
    for rule in _ON_TICK if isinstance(event, Tick) else RULES:
        fleet, asked = rule(fleet, now)
        actions += asked
    return fleet, actions
