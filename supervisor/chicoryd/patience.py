"""What happens because nothing else did: the rules that only a Tick applies, and the instant of the next one.  Pure."""

import attrs

from chicoryd.events import Abandon, Abort, Action, Kill, Log, Notify, Role
from chicoryd.recycle import end_of_age
from chicoryd.roster import Fleet, Step, may_start, summary
from chicoryd.rules import STATUS_PAUSE
from chicoryd.slot import Slot, State, tasks

LAST_WORDS = 5.0  # seconds between SIGABRT, which makes a hung child tell where it stands, and SIGKILL
EXTENSION = 5.0  # seconds between two requests for more time to stop


def lose_patience(fleet: Fleet, now: float) -> Step:
    """What does not start, boot, beat, stop or end in time is killed."""
    actions: list[Action] = []
    for slot in fleet.slots:
        if not slot.up or slot.due is None or now < slot.due:
            continue
        if slot.pid is None:
            fleet = fleet.put(attrs.evolve(slot, due=None))
            actions.append(Abandon(slot.consumer))
            continue
        blame = slot.blame or _blame(slot, now)
        named = ", ".join(f"{task.get('name')} ({task.get('id')})" for task in tasks(slot))
        running = f"; it ran {named}" if named else ""
        hangs = slot.state is State.READY and not slot.hung_up
        state, due = (State.HUNG, now + LAST_WORDS) if hangs else (State.KILLED, None)
        fleet = fleet.put(attrs.evolve(slot, state=state, due=due, blame=blame))
        text = f"{slot.name}, pid {slot.pid}, {blame}: {'aborting' if hangs else 'killing'} it{running}"
        actions += [Log(text, "warning"), Abort(slot.pid) if hangs else Kill(slot.pid)]
    return fleet, actions


def _blame(slot: Slot, now: float) -> str:
    if slot.state is State.BOOTING:
        state = slot.beat.get("state")
        return "has hung up and stays" if slot.hung_up else f"is not ready{f' but {state}' if state else ''}"
    if slot.state is State.STOPPING:
        return "has not left"
    return (
        "has hung up and stays"
        if slot.hung_up
        else f"has not beaten for {now - max(slot.beat_at, slot.ready_at or 0):.0f} s"
    )


def keep_the_watchdog(fleet: Fleet, now: float) -> Step:
    """The service manager hears that the daemon lives, unless it cannot even get rid of a scheduler that hangs."""
    if fleet.plan.watchdog is None or now < fleet.watchdog_at:
        return fleet, []
    fleet = attrs.evolve(fleet, watchdog_at=now + fleet.plan.watchdog)
    limit = fleet.plan.hang_timeout + 2 * LAST_WORDS
    stuck = any(s.state in (State.HUNG, State.KILLED) and now - s.beat_at > limit for s in fleet.of(Role.SCHEDULER))
    return fleet, [] if stuck else [Notify("WATCHDOG=1")]


def ask_for_time(fleet: Fleet, now: float) -> Step:
    """While workers use the time that is theirs, the service manager is asked not to lose its patience."""
    if not fleet.stopping or now < fleet.extend_at:
        return fleet, []
    if now > fleet.stopping_since + fleet.plan.shutdown_timeout:
        return attrs.evolve(fleet, extend_at=float("inf")), []
    return attrs.evolve(fleet, extend_at=now + EXTENSION), [Notify(f"EXTEND_TIMEOUT_USEC={int(2 * EXTENSION * 1e6)}")]


def wake(fleet: Fleet) -> float | None:
    """When to send the next Tick; None when only an event can change anything."""
    if fleet.over:
        return None
    instants = [slot.due for slot in fleet.slots if slot.due is not None and (slot.up or may_start(fleet, slot))]
    instants += [end for slot in fleet.seats if (end := end_of_age(fleet.plan, slot)) is not None]
    if summary(fleet) != fleet.status_told:
        instants.append(fleet.status_at + STATUS_PAUSE)
    if fleet.wishes is not None and fleet.roll is None and fleet.ready:
        instants.append(fleet.reload_at)
    if fleet.plan.watchdog is not None:
        instants.append(fleet.watchdog_at)
    if fleet.stopping and fleet.extend_at < float("inf"):
        instants.append(fleet.extend_at)
    return min(instants, default=None)
