"""A reload: check the new settings, try them on one worker, then replace the others one by one, or undo it all.  Pure.

Until it is committed the template of the old generation stays, and every failure is a reason to go back to it.
"""

import attrs

from chicoryd.events import Action, Log, Notify, Read, Reply, Role
from chicoryd.plan import Plan
from chicoryd.roster import Fleet, Phase, Roll, Step
from chicoryd.slot import Slot, State

PAUSE = 1.0  # seconds between the beginnings of two reloads
TRIAL = 30.0  # seconds in which a new worker must not die while others are still replaced
PARTING = 5.0  # seconds for a template or a check that is no longer needed


def begin(fleet: Fleet, now: float) -> Step:
    """Requests are gathered: whoever asks while a reload is under way asks for the next one."""
    if fleet.wishes is None or fleet.roll is not None or fleet.stopping or not fleet.ready or now < fleet.reload_at:
        return fleet, []
    number = fleet.numbered + 1
    roll = Roll(number=number, plan=fleet.plan, forks=False, tickets=fleet.wishes)
    fleet = attrs.evolve(fleet, roll=roll, wishes=None, numbered=number, reload_at=now + PAUSE, outcome="")
    # A successor that waits or boots would be one of the old generation.
    fleet = _retire(fleet, [slot.name for slot in fleet.slots if slot.name.endswith(".new")])
    # One datagram for both: a manager that gets them apart cannot tell which request was answered.
    reloading = f"RELOADING=1\nMONOTONIC_USEC={int(now * 1e6)}"
    return fleet, [Log(f"reloading, generation {number}"), Notify(reloading), Read()]


def have_read(fleet: Fleet, plan: Plan | None, why: str, now: float) -> Step:
    """The settings are read: what they say may be refused at once, or is checked by a child."""
    if fleet.roll is None or fleet.roll.phase is not Phase.READING:
        return fleet, []
    if plan is None:
        return refuse(fleet, why)
    before = dict(fleet.plan.fixed)
    changed = [name for name, value in plan.fixed if before.get(name) != value]
    if changed:
        return refuse(fleet, f"{' and '.join(changed)} cannot change while the daemon runs; stop it and start it anew")
    roll = attrs.evolve(fleet.roll, plan=plan, forks=plan.forks, phase=Phase.CHECKING)
    check = Slot(name="check", role=Role.CHECK, generation=roll.number, due=now)
    return attrs.evolve(fleet, roll=roll).add(check), []


def unfit(fleet: Fleet, slot: Slot, why: str, now: float) -> Step:
    """A template that must not fork: the workers of its generation start as processes of their own."""
    leaving = attrs.evolve(slot, state=State.STOPPING, retired=True, due=now + PARTING)
    fleet = fleet.put(leaving)
    if fleet.roll is not None and slot.generation == fleet.roll.number:
        fleet = attrs.evolve(fleet, roll=attrs.evolve(fleet.roll, forks=False))
    else:
        fleet = attrs.evolve(fleet, forks=False)
    text = f"workers are started one by one and share no memory, since after the import of the app {why}"
    return fleet, [Log(text, "warning")]


def mishap(fleet: Fleet, slot: Slot, why: str, now: float, code: int = 1) -> Step:
    """What the death of *slot*'s child, as it was, means for a reload."""
    roll = fleet.roll
    if roll is None or slot.generation != roll.number:
        return fleet.drop(slot.name) if slot.role is Role.CHECK else fleet, []
    if slot.role is Role.CHECK:
        fleet = fleet.drop(slot.name)
        if code:
            # Of a traceback, its end; else it is a line for each problem.
            words = slot.words[-1:] if any(line.startswith("Traceback") for line in slot.words) else slot.words
            return refuse(fleet, " ".join(words) or f"the check {why}")
        return _start_rolling(fleet, roll, now), []
    if slot.ready_at is not None and slot.role is Role.WORKER and now - slot.ready_at >= TRIAL:
        return fleet, []
    return refuse(fleet, f"{slot.name} of generation {roll.number} {why}")


def _start_rolling(fleet: Fleet, roll: Roll, now: float) -> Fleet:
    fleet = attrs.evolve(fleet, roll=attrs.evolve(roll, phase=Phase.ROLLING))
    if not roll.forks:
        return fleet
    return fleet.add(Slot(name="template.new", role=Role.TEMPLATE, generation=roll.number, due=now))


def refuse(fleet: Fleet, why: str) -> Step:
    """The old generation is kept.  Workers of the new one that took a seat already are replaced like all others."""
    roll = fleet.roll
    assert roll is not None
    new = [s.name for s in fleet.slots if s.generation == roll.number and s.name != s.seat and not s.retired]
    fleet = _retire(attrs.evolve(fleet, roll=None, outcome=f"reload failed: {why}"), new)
    fleet = _set_aside(fleet, "template.new")
    told: list[Action] = [Log(f"reload failed, generation {fleet.generation} stays: {why}", "error")]
    told += [Reply(ticket, {"refused": why}) for ticket in roll.tickets]
    return fleet, [*told, Notify("READY=1")]


def commit(fleet: Fleet, now: float) -> Step:
    """When every seat has a worker of the new generation, there is no way back, and no need of one."""
    roll = fleet.roll
    if roll is None or not roll.proven:
        return fleet, []
    workers = fleet.of(Role.WORKER)
    seats = [slot for slot in fleet.seats if slot.number <= roll.plan.workers]
    moved = all(slot.generation == roll.number and slot.state is State.READY for slot in seats)
    if not moved or len(seats) < roll.plan.workers or any(slot.name != slot.seat for slot in workers):
        return fleet, []
    fleet = attrs.evolve(fleet, plan=roll.plan, generation=roll.number, forks=roll.forks, roll=None)
    new = fleet.find("template.new")
    fleet = _set_aside(fleet, "template")
    if new is not None:
        fleet = fleet.put(attrs.evolve(new, name="template"), new.name)
    # The scheduler reads the settings as it starts.  It is missed for a moment only: leases outlast it.
    for slot in fleet.of(Role.SCHEDULER):
        fleet = fleet.put(attrs.evolve(slot, replace="the settings are new"))
    text = f"generation {roll.number} has taken over"
    told: list[Action] = [Reply(ticket, {"done": text}) for ticket in roll.tickets]
    return fleet, [Log(text), *told, Notify("READY=1")]


def _set_aside(fleet: Fleet, name: str) -> Fleet:
    """The template called *name* is to leave, under a name that no other has: the next may come before it has left."""
    slot = fleet.find(name)
    if slot is None:
        return fleet
    return fleet.put(attrs.evolve(slot, name=f"template.old-{slot.generation}", retired=True), name)


def _retire(fleet: Fleet, names: list[str]) -> Fleet:
    for name in names:
        slot = fleet.find(name)
        if slot is not None:
            fleet = fleet.put(attrs.evolve(slot, retired=True))
    return fleet
