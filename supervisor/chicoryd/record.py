"""What an event changes in the fleet, before anything is done about it.  Pure."""

import os
import signal
from typing import assert_never, cast

import attrs

from chicoryd.events import (
    Asked,
    Event,
    Exited,
    HaveRead,
    HungUp,
    Log,
    Message,
    Role,
    Said,
    Started,
    StartFailed,
    Tick,
    Woke,
)
from chicoryd.recycle import idles
from chicoryd.reload import have_read, mishap, unfit
from chicoryd.requests import asked
from chicoryd.respawn import failures, pause
from chicoryd.roster import Death, Fleet, Step, wanted
from chicoryd.slot import Slot, State, cause, tasks

HUNG_UP = 10.0  # seconds a child may outlive its lifeline
MOST_DEATHS = 1000  # remembered while no scheduler is up; the leases cover what is forgotten
MOST_CRASHES = 10
MOST_WORDS = 100  # lines of the check child that are kept
MEMORY = 60.0  # seconds for which a scheduler that comes back is told again who died: the last one may not have acted

# Whose beats are waited for.  The server may have reasons of its own to be silent, such as a large file.
WATCHED = (Role.SCHEDULER, Role.WORKER)


def record(fleet: Fleet, event: Event, now: float) -> Step:
    """The fleet that knows of *event*, and what to say about it."""
    match event:
        case Tick():
            return fleet, []
        case Started(consumer, pid, draw):
            slot = _by_consumer(fleet, consumer)
            due = now + fleet.plan.boot_timeout
            slot = attrs.evolve(slot, state=State.BOOTING, pid=pid, born=now, due=due, luck=draw)
            return fleet.put(slot), [Log(f"{slot.name} started, pid {pid}")]
        case StartFailed(consumer, why, draw):
            return _not_started(fleet, _by_consumer(fleet, consumer), why, draw, now)
        case Said(pid, message):
            slot = _by_pid(fleet, pid)
            return (fleet, []) if slot is None else _heard(fleet, slot, message, now)
        case HungUp(pid):
            slot = _by_pid(fleet, pid)
            if slot is None or slot.state not in (State.BOOTING, State.READY):
                return fleet, []
            # Most often it is just ending, and Exited follows.
            return fleet.put(attrs.evolve(slot, hung_up=True, due=now + HUNG_UP)), []
        case Exited(pid):
            slot = _by_pid(fleet, pid)
            # As process 1 of a container the daemon reaps children it never had.
            return (fleet, []) if slot is None else _exited(fleet, slot, event, now)
        case Asked():
            return asked(fleet, event, now)
        case HaveRead(plan, why):
            return have_read(fleet, plan, why, now)
        case Woke(seconds):
            return _woke(fleet, seconds, now)
        case _:
            assert_never(event)


def _by_pid(fleet: Fleet, pid: int) -> Slot | None:
    return next((slot for slot in fleet.slots if slot.pid == pid), None)


def _by_consumer(fleet: Fleet, consumer: str) -> Slot:
    return next(slot for slot in fleet.slots if slot.consumer == consumer and slot.state is State.STARTING)


def _not_started(fleet: Fleet, slot: Slot, why: str, draw: float, now: float) -> Step:
    count = failures(slot.failures, 0)
    wait = pause(count, draw)
    ended = f"not started: {why}"
    fleet = fleet.put(attrs.evolve(slot, state=State.DOWN, failures=count, due=now + wait, ended=ended))
    again = f"; next try {_in(wait)}" if wanted(fleet, slot) else ""
    fleet, actions = mishap(fleet, slot, f"cannot be started: {why}", now)
    return fleet, [Log(f"{slot.name} cannot be started: {why}{again}", "warning"), *actions]


def _heard(fleet: Fleet, slot: Slot, message: Message, now: float) -> Step:
    facts = {key: value for key, value in message.items() if key != "t"}
    match message.get("t"):
        case "ready" if slot.state is State.BOOTING:
            due = slot.due if slot.hung_up else now + fleet.plan.hang_timeout if slot.role in WATCHED else None
            ready = attrs.evolve(slot, state=State.READY, ready_at=now, due=due, boots_failed=0, moved_at=now)
            return fleet.put(ready), [Log(f"{slot.name} is ready after {now - slot.born:.1f} s")]
        case "unfit" if slot.role is Role.TEMPLATE and slot.state is State.BOOTING:
            return unfit(fleet, slot, str(facts.get("why")), now)
        case "beat":
            return fleet.put(_beaten(fleet, slot, facts, now)), []
        case "said":
            words = (*slot.words, str(facts.get("text")))[-MOST_WORDS:]
            return fleet.put(attrs.evolve(slot, words=words)), []
        case "bye":
            report = facts.get("report")
            counts = cast("dict[str, object]", report) if isinstance(report, dict) else {}
            told = ", ".join(f"{key} {count}" for key, count in counts.items() if isinstance(count, int | float))
            fleet = fleet.put(attrs.evolve(slot, report=counts))
            return fleet, [Log(f"{slot.name} says goodbye{': ' if told else ''}{told}")]
        case _:
            return fleet, []


def _beaten(fleet: Fleet, slot: Slot, facts: dict[str, object], now: float) -> Slot:
    due = slot.due
    tried = fleet.roll is not None and slot.generation == fleet.roll.number
    if slot.state is State.BOOTING and not slot.hung_up and not tried:
        # One that boots for long but says so, as a server with a large file does or a worker whose broker is away, is
        # not stuck.  Only in a reload the old generation is there to go back to.
        due = now + fleet.plan.boot_timeout
    elif slot.state is State.READY and slot.role in WATCHED and not slot.hung_up:
        due = now + fleet.plan.hang_timeout
    idle = idles(fleet, slot, facts, now)
    slot = attrs.evolve(slot, beat=facts, beat_at=now, due=due)
    return slot if idle else attrs.evolve(slot, moved_at=now, nudged=False)


def _woke(fleet: Fleet, seconds: float, now: float) -> Step:
    """Nobody is judged by a time in which the supervisor could not listen, and perhaps they could not speak."""
    slots: list[Slot] = []
    for slot in fleet.slots:
        due = slot.due
        if slot.up and due is not None:
            watched = slot.state is State.READY and not slot.hung_up
            due = now + fleet.plan.hang_timeout if watched else due + seconds
        slots.append(attrs.evolve(slot, due=due, moved_at=slot.moved_at + seconds))
    text = f"stood still for {seconds:.1f} s; everybody gets that much longer"
    return attrs.evolve(fleet, slots=tuple(slots)), [Log(text, "warning")]


def _exited(fleet: Fleet, slot: Slot, event: Exited, now: float) -> Step:
    blamed = f", because it {slot.blame}" if slot.blame else ""
    said = (slot.report or {}).get("why")
    why = cause(event.code, starved=event.starved and not blamed) + blamed
    if isinstance(said, str):
        why += f": {said}"
    asked_to = slot.state is State.STOPPING and event.code in (0, -signal.SIGTERM)
    lived = 0.0 if slot.ready_at is None else now - slot.ready_at
    # Who was told to leave, and then starts again, has not failed.
    count = slot.failures if asked_to else failures(slot.failures, lived)
    wait = 0.0 if asked_to else pause(count, event.draw)
    left = attrs.evolve(
        slot,
        state=State.DOWN,
        pid=None,
        due=now + wait,
        ready_at=None,
        hung_up=False,
        failures=count,
        boots_failed=slot.boots_failed + (slot.ready_at is None and not asked_to),
        code=event.code,
        ended=why,
        blame="",
        beat={},
        nudged=False,
        quiet=False,
        replace="",
        report=None,
    )
    if slot.role is Role.WORKER:
        # Even after status 0: a task that calls os._exit(0) leaves its neighbours unfinished.
        death = Death(slot.consumer, why, now)
        fleet = attrs.evolve(fleet, deaths=(*fleet.deaths, death)[-MOST_DEATHS:])
        if fleet.stopping:
            fleet = attrs.evolve(fleet, drained=(*fleet.drained, _drained(slot, why)))
    elif slot.role is Role.SCHEDULER:
        recent = tuple(attrs.evolve(d, told=False) for d in fleet.deaths if not d.told or now - d.at < MEMORY)
        fleet = attrs.evolve(fleet, deaths=recent, alive_told=None)
    fleet = fleet.put(left)
    if asked_to:
        return fleet, [Log(f"{slot.name} has left")]
    if slot.role is Role.CHECK:
        return mishap(fleet, slot, why, now, event.code)
    if slot.state is not State.STOPPING:
        fleet = attrs.evolve(fleet, crashes=(*fleet.crashes, now)[-MOST_CRASHES:])
    if wanted(fleet, left):
        told = Log(f"{slot.name}, pid {slot.pid}, {why}; starts again {_in(wait)}", "warning")
        fleet, actions = mishap(fleet, slot, why, now)
        return fleet, [told, *actions]
    code = (fleet.code or os.EX_SOFTWARE) if fleet.stopping else fleet.code
    return attrs.evolve(fleet, code=code), [Log(f"{slot.name}, pid {slot.pid}, {why} while stopping", "warning")]


def _drained(slot: Slot, why: str) -> Message:
    """What became of the tasks that a worker ran when it was told to stop."""
    report = dict(slot.report or {})
    # Of one that said nothing, its last beat is all that is known.
    unsaid = [{"id": task.get("id"), "name": task.get("name"), "end": "killed"} for task in tasks(slot)]
    ends = report.pop("tasks", unsaid)
    report.pop("why", None)  # said in its end
    return {"worker": slot.name, "consumer": slot.consumer, "end": why, "tasks": ends, "counts": report}


def _in(seconds: float) -> str:
    return f"in {seconds:.1f} s" if seconds else "at once"
