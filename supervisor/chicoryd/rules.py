"""What the state of the fleet calls for: one rule each, applied in this order after every event.  Pure."""

import os

import attrs

from chicoryd.events import Action, Log, Message, Notify, Quit, Role, Start, Tell, Terminate
from chicoryd.record import MEMORY
from chicoryd.recycle import recycle
from chicoryd.reload import PARTING, begin, commit
from chicoryd.replace import fit, promote, replace, tidy
from chicoryd.roster import Fleet, Step, begin_to_stop, may_start, method, summary, template, wanted
from chicoryd.slot import Slot, State

BOOT_TRIES = 3  # at the first start; later the daemon never gives up
PATIENCE = {Role.SCHEDULER: 10.0, Role.SERVER: 25.0, Role.TEMPLATE: PARTING, Role.CHECK: PARTING}
STATUS_PAUSE = 1.0

# What a child's exit status says about the settings and not about the child; it becomes the daemon's own.
_PASSED_ON = (os.EX_NOINPUT, os.EX_UNAVAILABLE, os.EX_CONFIG)
_NEEDED = (Role.SERVER, Role.SCHEDULER, Role.WORKER)


def give_up(fleet: Fleet, now: float) -> Step:
    """A fleet that never came up, and of which one part fails each time, says so instead of trying for ever."""
    if fleet.ready or fleet.stopping:
        return fleet, []
    for role in Role:
        slots = [slot for slot in fleet.of(role) if not slot.retired]
        if slots and all(slot.boots_failed >= BOOT_TRIES for slot in slots):
            text = f"no {role} came up in {BOOT_TRIES} tries, giving up; the lines above say why"
            code = next((slot.code for slot in slots if slot.code in _PASSED_ON), None)
            return begin_to_stop(fleet, text, now, code or os.EX_SOFTWARE)
    return fleet, []


def inform(fleet: Fleet, now: float) -> Step:
    """The scheduler hears who died, so that their work is taken back at once, and who lives."""
    (scheduler,) = fleet.of(Role.SCHEDULER)
    if scheduler.state is not State.READY or scheduler.pid is None:
        return fleet, []
    actions: list[Action] = [
        Tell(scheduler.pid, {"t": "dead", "consumer": death.consumer, "why": death.why})
        for death in fleet.deaths
        if not death.told
    ]
    alive = tuple(slot.consumer for slot in fleet.of(Role.WORKER) if slot.pid is not None)
    if alive != fleet.alive_told:
        actions.append(Tell(scheduler.pid, {"t": "alive", "consumers": list(alive)}))
    if not actions:
        return fleet, []
    deaths = tuple(attrs.evolve(death, told=True) for death in fleet.deaths if now - death.at < MEMORY)
    return attrs.evolve(fleet, deaths=deaths, alive_told=alive), actions


def stop(fleet: Fleet, now: float) -> Step:
    """What is no longer wanted is told to leave; and what has no successor beside it, so that it starts anew."""
    actions: list[Action] = []
    for slot in fleet.slots:
        anew = slot.replace and slot.role is not Role.WORKER and slot.state is State.READY
        if wanted(fleet, slot) and not anew:
            continue
        if slot.state is State.STARTING and slot.due is not None and slot.due > now + PARTING:
            fleet = fleet.put(attrs.evolve(slot, due=now + PARTING))
        if slot.pid is None or slot.state not in (State.BOOTING, State.READY):
            continue
        message, patience = _farewell(fleet, slot)
        if slot.role is not Role.CHECK:
            actions.append(Tell(slot.pid, message))
        if slot.state is State.BOOTING:
            # It holds no work yet, and until it listens a signal is all that reaches it.
            actions.append(Terminate(slot.pid))
        fleet = fleet.put(attrs.evolve(slot, state=State.STOPPING, due=now + patience))
    return fleet, actions


def _farewell(fleet: Fleet, slot: Slot) -> tuple[Message, float]:
    """What to say to a child that is to leave, and how long it may take."""
    if slot.role is not Role.WORKER:
        return {"t": "stop"}, PATIENCE[slot.role]
    if fleet.hurried:
        return {"t": "stop", "grace": 0.0}, fleet.plan.margin
    return {"t": "stop", "grace": fleet.plan.grace}, fleet.plan.shutdown_timeout


def start(fleet: Fleet, now: float) -> Step:
    """What is wanted, down and due is started."""
    actions: list[Action] = []
    for slot in fleet.slots:
        if slot.up or slot.due is None or now < slot.due or not may_start(fleet, slot):
            continue
        incarnation = fleet.incarnations.get(slot.seat, 0) + 1
        generation, forked = method(fleet, slot)
        source = template(fleet, generation) if forked else None
        begun = attrs.evolve(
            slot,
            state=State.STARTING,
            incarnation=incarnation,
            consumer=f"{fleet.plan.identity}:{slot.seat}:{incarnation}",
            generation=generation,
            due=now + fleet.plan.boot_timeout,
        )
        fleet = attrs.evolve(fleet.put(begun), incarnations={**fleet.incarnations, slot.seat: incarnation})
        parent = None if source is None else source.pid
        plan = fleet.roll.plan if fleet.roll is not None and generation == fleet.roll.number else fleet.plan
        actions.append(Start(slot.role, begun.consumer, parent, plan.settings, not fleet.ready))
    return fleet, actions


def hush(fleet: Fleet, now: float) -> Step:
    """Every worker knows whether to fetch."""
    actions: list[Action] = []
    for slot in fleet.of(Role.WORKER):
        if slot.state is State.READY and slot.quiet != fleet.quiet and slot.pid is not None:
            fleet = fleet.put(attrs.evolve(slot, quiet=fleet.quiet))
            actions.append(Tell(slot.pid, {"t": "quiet" if fleet.quiet else "resume"}))
    return fleet, actions


def announce(fleet: Fleet, now: float) -> Step:
    """The service manager hears when the fleet is complete for the first time, and how it goes, once a second."""
    actions: list[Action] = []
    if not fleet.ready and not fleet.stopping and complete(fleet):
        fleet = attrs.evolve(fleet, ready=True)
        actions += [Log(f"ready after {now - fleet.born:.1f} s"), Notify("READY=1")]
    text = summary(fleet)
    if text != fleet.status_told and now >= fleet.status_at + STATUS_PAUSE:
        fleet = attrs.evolve(fleet, status_told=text, status_at=now)
        actions.append(Notify(f"STATUS={text}"))
    return fleet, actions


def complete(fleet: Fleet) -> bool:
    """Whether at least one of each kind is ready."""
    return all(any(s.state is State.READY for s in slots) for role in _NEEDED if (slots := fleet.of(role)))


def finish(fleet: Fleet, now: float) -> Step:
    """When the last one has left, the daemon ends."""
    if not fleet.stopping or fleet.over or any(slot.up for slot in fleet.slots):
        return fleet, []
    return attrs.evolve(fleet, over=True), [Quit(fleet.code)]


RULES = (give_up, begin, tidy, promote, commit, fit, recycle, replace, inform, stop, start, hush, announce, finish)
