"""What an event changes in the fleet, before anything is done about it.  Pure."""

import os
import signal
from typing import assert_never, cast

import attrs

from chicoryd.events import (
    Action,
    Asked,
    Event,
    Exited,
    HungUp,
    Log,
    Message,
    Role,
    Said,
    Started,
    StartFailed,
    Tell,
    Tick,
)
from chicoryd.respawn import failures, pause
from chicoryd.roster import MEMORY, Death, Fleet, Step, begin_to_stop, wanted
from chicoryd.slot import Slot, State, cause

HUNG_UP = 10.0  # seconds a child may outlive its lifeline
MOST_DEATHS = 1000  # remembered while no scheduler is up; the leases cover what is forgotten


def record(fleet: Fleet, event: Event, now: float) -> Step:
    """The fleet that knows of *event*, and what to say about it."""
    match event:
        case Tick():
            return fleet, []
        case Started(name, pid):
            slot = next(slot for slot in fleet.slots if slot.name == name)
            slot = attrs.evolve(slot, state=State.BOOTING, pid=pid, born=now, due=now + fleet.plan.boot_timeout)
            return fleet.put(slot), [Log(f"{name} started, pid {pid}")]
        case StartFailed(name, why, draw):
            slot = next(slot for slot in fleet.slots if slot.name == name)
            count = failures(slot.failures, 0)
            wait = pause(count, draw)
            slot = attrs.evolve(slot, state=State.DOWN, failures=count, due=now + wait, ended=f"not started: {why}")
            return fleet.put(slot), [Log(f"{name} cannot be started: {why}; next try {_in(wait)}", "warning")]
        case Said(pid, message):
            slot = _by_pid(fleet, pid)
            return (fleet, []) if slot is None else _heard(fleet, slot, message, now)
        case HungUp(pid):
            slot = _by_pid(fleet, pid)
            if slot is None or slot.state not in (State.BOOTING, State.READY):
                return fleet, []
            # Most often it is just ending, and Exited follows.
            return fleet.put(attrs.evolve(slot, due=now + HUNG_UP)), []
        case Exited(pid):
            slot = _by_pid(fleet, pid)
            # As process 1 of a container the daemon reaps children it never had.
            return (fleet, []) if slot is None else _exited(fleet, slot, event, now)
        case Asked(what):
            return _asked(fleet, what, now)
        case _:
            assert_never(event)


def _by_pid(fleet: Fleet, pid: int) -> Slot | None:
    return next((slot for slot in fleet.slots if slot.pid == pid), None)


def _heard(fleet: Fleet, slot: Slot, message: Message, now: float) -> Step:
    facts = {key: value for key, value in message.items() if key != "t"}
    match message.get("t"):
        case "ready" if slot.state is State.BOOTING:
            text = f"{slot.name} is ready after {now - slot.born:.1f} s"
            return fleet.put(attrs.evolve(slot, state=State.READY, ready_at=now, due=None, boots_failed=0)), [Log(text)]
        case "beat":
            # One that boots for long but says so, as a server with a large file does, is not stuck.
            due = now + fleet.plan.boot_timeout if slot.state is State.BOOTING else slot.due
            return fleet.put(attrs.evolve(slot, beat=facts, beat_at=now, due=due)), []
        case "bye":
            report = facts.get("report")
            counts = cast("dict[str, object]", report) if isinstance(report, dict) else {}
            told = ", ".join(f"{key} {count}" for key, count in counts.items() if isinstance(count, int | float))
            return fleet, [Log(f"{slot.name} says goodbye{': ' if told else ''}{told}")]
        case _:
            return fleet, []


def _exited(fleet: Fleet, slot: Slot, event: Exited, now: float) -> Step:
    why = cause(event.code)
    lived = 0.0 if slot.ready_at is None else now - slot.ready_at
    count = failures(slot.failures, lived)
    wait = pause(count, event.draw)
    asked = slot.state is State.STOPPING
    left = attrs.evolve(
        slot,
        state=State.DOWN,
        pid=None,
        due=now + wait,
        ready_at=None,
        failures=count,
        boots_failed=slot.boots_failed + (slot.ready_at is None),
        code=event.code,
        ended=why,
        beat={},
    )
    if slot.role is Role.WORKER:
        # Even after status 0: a task that calls os._exit(0) leaves its neighbours unfinished.
        death = Death(fleet.consumer(slot), why, now)
        fleet = attrs.evolve(fleet, deaths=(*fleet.deaths, death)[-MOST_DEATHS:])
    elif slot.role is Role.SCHEDULER:
        recent = tuple(attrs.evolve(d, told=False) for d in fleet.deaths if not d.told or now - d.at < MEMORY)
        fleet = attrs.evolve(fleet, deaths=recent, alive_told=None)
    fleet = fleet.put(left)
    if asked and event.code in (0, -signal.SIGTERM):
        return fleet, [Log(f"{slot.name} has left")]
    if wanted(fleet, left):
        return fleet, [Log(f"{slot.name}, pid {slot.pid}, {why}; starts again {_in(wait)}", "warning")]
    code = fleet.code or os.EX_SOFTWARE
    return attrs.evolve(fleet, code=code), [Log(f"{slot.name}, pid {slot.pid}, {why} while stopping", "warning")]


def _asked(fleet: Fleet, what: str, now: float) -> Step:
    """SIGTERM, SIGINT and `stop` let the tasks finish; SIGQUIT, or SIGINT once more, does not."""
    hurry = what == "SIGQUIT" or (what == "SIGINT" and fleet.stopping)
    actions: list[Action] = []
    if not fleet.stopping:
        fleet, actions = begin_to_stop(fleet, f"{what}: stopping")
    if not hurry or fleet.hurried:
        return fleet, actions
    fleet = attrs.evolve(fleet, hurried=True)
    actions.append(Log(f"{what}: in a hurry, running tasks are cancelled and given back"))
    for slot in fleet.of(Role.WORKER):
        if slot.state is State.STOPPING and slot.pid is not None and slot.due is not None:
            fleet = fleet.put(attrs.evolve(slot, due=min(slot.due, now + fleet.plan.margin)))
            actions.append(Tell(slot.pid, {"t": "stop", "grace": 0.0}))
    return fleet, actions


def _in(seconds: float) -> str:
    return f"in {seconds:.1f} s" if seconds else "at once"
