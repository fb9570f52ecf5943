"""When a worker has done enough: by tasks, by age, by memory, by its own word, or because it fetches no more.  Pure."""

import attrs

from chicoryd.events import Action, Log, Message, Role, Tell
from chicoryd.plan import Plan
from chicoryd.roster import Fleet, Step
from chicoryd.slot import Slot, State

IDLE = 30.0  # seconds with ready work, a free place and no fetch after which a worker is told to connect anew
STUCK = 90.0  # and after which it is replaced
# A fresh worker that is over the limit at once would only be replaced by another such, for ever.
SETTLED = 60.0


def recycle(fleet: Fleet, now: float) -> Step:
    """Workers that have reached a limit are to be replaced, one after the other."""
    actions: list[Action] = []
    for slot in fleet.seats:
        if slot.state is not State.READY or slot.replace or slot.retired:
            continue
        if why := _worn(fleet.plan, slot, now):
            fleet = fleet.put(attrs.evolve(slot, replace=why))
        elif slot.beat_at - slot.moved_at >= IDLE and not slot.nudged and slot.pid is not None:
            fleet = fleet.put(attrs.evolve(slot, nudged=True))
            text = f"{slot.name} has a free place and fetches nothing although there is work; it is to connect anew"
            actions += [Log(text, "warning"), Tell(slot.pid, {"t": "reconnect"})]
    return fleet, actions


def idles(fleet: Fleet, slot: Slot, facts: Message, now: float) -> bool:
    """Whether a worker that tells *facts* could fetch and has not, since it last told, although there is work.

    The scheduler tells how much waits: a worker that hears nothing of the broker cannot know.
    """
    told = [s.beat.get("ready") for s in fleet.of(Role.SCHEDULER) if s.state is State.READY and now - s.beat_at < IDLE]
    free = facts.get("free")
    can = slot.role is Role.WORKER and not fleet.quiet and isinstance(free, int) and free > 0
    waits = any(isinstance(ready, int) and ready > 0 for ready in told)
    return can and waits and facts.get("fetched") == slot.beat.get("fetched")


def end_of_age(plan: Plan, slot: Slot) -> float | None:
    """When the worker in *slot* is too old."""
    if plan.max_age is None or slot.state is not State.READY or slot.ready_at is None or slot.replace or slot.retired:
        return None
    return slot.ready_at + plan.max_age * _spread(plan, slot)


def _worn(plan: Plan, slot: Slot, now: float) -> str:
    done = slot.beat.get("done")
    if plan.max_tasks is not None and isinstance(done, int) and done >= max(plan.max_tasks * _spread(plan, slot), 1):
        return f"it has run {done} tasks"
    end = end_of_age(plan, slot)
    if end is not None and now >= end and slot.ready_at is not None:
        return f"it is {now - slot.ready_at:.0f} s old"
    # Pages that are shared with the template count in the resident size of every worker, in the proportional one once.
    used = slot.beat.get("pss", slot.beat.get("rss"))
    settled = slot.ready_at is not None and now - slot.ready_at >= SETTLED
    if plan.memory_soft is not None and isinstance(used, int) and used >= plan.memory_soft and settled:
        return f"it uses {used / 2**20:.0f} MiB"
    said = slot.beat.get("worn")
    if isinstance(said, str) and said:
        return said
    return "it fetches nothing although there is work" if slot.beat_at - slot.moved_at >= STUCK else ""


def _spread(plan: Plan, slot: Slot) -> float:
    return 1 + plan.jitter * (2 * slot.luck - 1)
