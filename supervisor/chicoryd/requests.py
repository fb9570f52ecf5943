"""What an operator asks for, by a signal or over the control socket.  Pure."""

import json

import attrs

from chicoryd.events import Action, Asked, Log, Reopen, Reply, Role, Tell
from chicoryd.roster import Fleet, Step, begin_to_stop
from chicoryd.slot import State
from chicoryd.status import describe

MOST_WORKERS = 1024
# A terminal sends Ctrl-C to all in its foreground, and a parent that hears it may pass it on as well: what comes within
# this many seconds is one request.
ECHO = 1.5


def asked(fleet: Fleet, event: Asked, now: float) -> Step:
    """The fleet that knows what is wanted of it, and the answer if there is one already."""
    match event.what:
        case "SIGTERM" | "SIGINT" | "SIGQUIT" | "stop":
            return _stop(fleet, event.what, now)
        case "SIGUSR1":
            return fleet, _reopen(fleet)
        case _ if fleet.stopping:
            return fleet, _answer(event, "refused", "the daemon is stopping")
        case "SIGHUP" | "reload":
            waiting = (*(fleet.wishes or ()), *((event.ticket,) if event.ticket else ()))
            return attrs.evolve(fleet, wishes=waiting, quiet=False), []
        case "SIGTTIN":
            return _scale(fleet, event, fleet.plan.workers + 1)
        case "SIGTTOU":
            return _scale(fleet, event, fleet.plan.workers - 1)
        case "scale":
            return _scale(fleet, event, int(event.argument) if event.argument.isdecimal() else 0)
        case "SIGTSTP" | "quiet":
            return attrs.evolve(fleet, quiet=True), _answer(event, "done", "workers fetch nothing until resume")
        case "resume":
            return attrs.evolve(fleet, quiet=False), _answer(event, "done", "workers fetch again")
        case "restart":
            return _restart(fleet, event)
        case "SIGUSR2" | "dump":
            return fleet, [*_dump(fleet, now), *_answer(event, "done", "the log has it")]
        case unknown:
            return fleet, _answer(event, "error", f"unknown command {unknown!r}")


def _stop(fleet: Fleet, what: str, now: float) -> Step:
    """The first request lets the tasks finish; a second signal, or SIGQUIT, does not."""
    again = fleet.stopping and what != "stop" and now - fleet.stopping_since >= ECHO
    actions: list[Action] = []
    if not fleet.stopping:
        fleet, actions = begin_to_stop(fleet, f"{what}: stopping", now)
    if fleet.hurried or not (again or what == "SIGQUIT"):
        return fleet, actions
    fleet = attrs.evolve(fleet, hurried=True)
    actions.append(Log(f"{what}: in a hurry, running tasks are cancelled and given back"))
    for slot in fleet.of(Role.WORKER):
        if slot.state is State.STOPPING and slot.pid is not None and slot.due is not None:
            fleet = fleet.put(attrs.evolve(slot, due=min(slot.due, now + fleet.plan.margin)))
            actions.append(Tell(slot.pid, {"t": "stop", "grace": 0.0}))
    return fleet, actions


def _scale(fleet: Fleet, event: Asked, workers: int) -> Step:
    if not 1 <= workers <= MOST_WORKERS:
        return fleet, _answer(event, "refused", f"there can be 1 to {MOST_WORKERS} workers")
    if fleet.roll is not None:
        return fleet, _answer(event, "refused", "a reload is under way; it sets the number of workers")
    plan = attrs.evolve(fleet.plan, workers=workers)
    told = _answer(event, "done", f"{workers} workers, until the settings are read again")
    return attrs.evolve(fleet, plan=plan), [Log(f"{event.what}: {workers} workers"), *told]


def _restart(fleet: Fleet, event: Asked) -> Step:
    slot = fleet.find(event.argument)
    if slot is None or slot.role in (Role.TEMPLATE, Role.CHECK) or slot.name != slot.seat:
        known = ", ".join(s.name for s in fleet.slots if s.role not in (Role.TEMPLATE, Role.CHECK) and s.name == s.seat)
        return fleet, _answer(event, "refused", f"there is no slot {event.argument!r}; there are {known}")
    if not slot.up:
        fleet = fleet.put(attrs.evolve(slot, due=0.0))
        return fleet, _answer(event, "done", f"{slot.name} starts")
    fleet = fleet.put(attrs.evolve(slot, replace="an operator asked for it"))
    return fleet, _answer(event, "done", f"{slot.name} is being replaced")


def _dump(fleet: Fleet, now: float) -> list[Action]:
    """Everything about every slot to the log, where each worker that can adds its tasks."""
    actions: list[Action] = [Log(json.dumps(slot)) for slot in describe(fleet, now)["slots"]]
    ready = [slot.pid for slot in fleet.of(Role.WORKER) if slot.state is State.READY and slot.pid is not None]
    return [*actions, *(Tell(pid, {"t": "dump"}) for pid in ready)]


def _reopen(fleet: Fleet) -> list[Action]:
    """The log file anew, for everybody who writes into it."""
    writers = [slot.pid for role in (Role.SCHEDULER, Role.WORKER) for slot in fleet.of(role) if slot.pid is not None]
    return [Reopen(), *(Tell(pid, {"t": "reopen"}) for pid in writers)]


def _answer(event: Asked, kind: str, text: str) -> list[Action]:
    if event.ticket:
        return [Reply(event.ticket, {kind: text})]
    return [Log(f"{event.what}: {text}")] if kind != "done" else []
