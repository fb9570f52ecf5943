"""Who sits where: seats come and go with the number of workers, and a child is replaced by one that is ready.  Pure.

The successor boots in a slot of its own, and only when it is ready is its predecessor told to leave: there are never
fewer workers ready than before, and never more than one seat changes hands at a time.
"""

import attrs

from chicoryd.events import Action, Log, Role
from chicoryd.roster import Fleet, Phase, Step, seat
from chicoryd.slot import Slot, State


def tidy(fleet: Fleet, now: float) -> Step:
    """A retired slot ends with its child."""
    for slot in fleet.slots:
        if slot.retired and not slot.up:
            fleet = fleet.drop(slot.name)
    return fleet, []


def fit(fleet: Fleet, now: float) -> Step:
    """There are as many seats as the plan wants; in a reload, as many as the larger of both plans wants."""
    if fleet.stopping:
        return fleet, []
    count = fleet.plan.workers
    if fleet.roll is not None and fleet.roll.proven:
        count = max(count, fleet.roll.plan.workers)
    for slot in fleet.of(Role.WORKER):
        if slot.number > count and not slot.retired:
            fleet = fleet.put(attrs.evolve(slot, retired=True))
    fleet, _ = tidy(fleet, now)
    for number in range(1, count + 1):
        if fleet.find(f"worker-{number}") is None:
            fleet = fleet.add(seat(number, fleet.aim[0], now))
    return fleet, []


def promote(fleet: Fleet, now: float) -> Step:
    """A successor that is ready takes the seat, and its predecessor is to leave."""
    for new in fleet.of(Role.WORKER):
        if not new.name.endswith(".new") or new.state is not State.READY or new.retired:
            continue
        old = fleet.find(new.seat)
        assert old is not None, "a successor without a seat is retired with it"
        fleet = fleet.drop(new.name).put(attrs.evolve(new, name=new.seat, failures=0))
        if old.up:
            fleet = fleet.add(attrs.evolve(old, name=f"{old.name}.old", retired=True))
        roll = fleet.roll
        if roll is not None and new.generation == roll.number and not roll.proven:
            fleet = attrs.evolve(fleet, roll=attrs.evolve(roll, proven=True))
    return fleet, []


def replace(fleet: Fleet, now: float) -> Step:
    """One worker that should be replaced gets a successor, when nobody else is being replaced."""
    if fleet.stopping or not fleet.ready or any(slot.name != slot.seat for slot in fleet.of(Role.WORKER)):
        return fleet, []
    generation, last, trying = fleet.generation, fleet.plan.workers, False
    if fleet.roll is not None:
        if fleet.roll.phase is not Phase.ROLLING:
            return fleet, []  # soon there may be a better successor
        generation, last, trying = fleet.roll.number, fleet.roll.plan.workers, not fleet.roll.proven
    for slot in fleet.seats:
        why = slot.replace or ("its generation is over" if slot.generation != generation else "")
        # An empty seat is filled anyway, unless that would be with one of the generation that is about to end.
        if not why or slot.number > last or slot.retired or not (slot.up or trying):
            continue
        successor = Slot(name=f"{slot.name}.new", role=Role.WORKER, generation=generation, due=now)
        told: list[Action] = [Log(f"{slot.name} is being replaced: {why}")]
        return fleet.add(successor), told
    return fleet, []
