"""The fleet as `chicoryd status` shows it.  Pure."""

from typing import Any, cast

from chicoryd.events import Role
from chicoryd.roster import Fleet, summary
from chicoryd.slot import Slot, State

MANY = 10  # crashes within CRASH_WINDOW seconds after which the fleet is unwell
CRASH_WINDOW = 60.0

_SHOWN = 5  # of the running tasks of each worker, the oldest

_COLUMNS = ("SLOT", "STATE", "GEN", "INC", "PID", "UP", "RESTARTS", "RUNNING", "LAG", "MEMORY", "LAST END")


def describe(fleet: Fleet, now: float) -> dict[str, Any]:
    """Everything there is to know, in values that JSON has.  Seconds are ages, not instants."""
    return {
        "summary": summary(fleet),
        "state": "stopping" if fleet.stopping else "running" if fleet.ready else "starting",
        "uptime": round(now - fleet.born, 3),
        "generation": fleet.generation,
        "start_method": "template" if fleet.forks else "exec",
        "reload": fleet.roll.phase.value if fleet.roll is not None else None,
        "reload_failed": fleet.outcome.partition(": ")[2] or None,
        "quiet": fleet.quiet,
        "slots": [_describe_slot(fleet, slot, now) for slot in fleet.slots],
    }


def _describe_slot(fleet: Fleet, slot: Slot, now: float) -> dict[str, Any]:
    known = slot.pid is not None
    return {
        "slot": slot.name,
        "state": slot.state.value,
        "generation": slot.generation,
        "incarnation": slot.incarnation,
        "pid": slot.pid,
        "consumer": slot.consumer if known else None,
        "uptime": round(now - slot.born, 3) if known else None,
        "starts_in": max(round(slot.due - now, 3), 0.0) if not slot.up and slot.due is not None else None,
        "restarts": slot.restarts,
        "failures": slot.failures,
        "last_end": slot.ended,
        "beat": dict(slot.beat) or None,
        "beat_age": round(now - slot.beat_at, 3) if slot.beat else None,
    }


def health(fleet: Fleet, now: float) -> dict[str, Any]:
    """Whether the daemon is alive, whether it works, and what is wrong with it, as `chicoryd health` shows it."""
    reasons = ["the daemon is stopping"] if fleet.stopping else []
    for role in (Role.SERVER, Role.SCHEDULER, Role.WORKER):
        slots = fleet.of(role)
        if slots and not any(slot.state is State.READY for slot in slots):
            reasons.append(f"no {role} is ready")
    ready = not reasons
    reasons += [f"{s.name} failed {s.failures} times in a row" for s in fleet.slots if not s.up and s.failures > 1]
    reasons += [f"{s.name} does not reach the broker" for s in fleet.slots if s.up and s.beat.get("state") == "away"]
    reasons += [f"{s.name} is hung" for s in fleet.slots if s.state is State.HUNG]
    recent = [at for at in fleet.crashes if now - at < CRASH_WINDOW]
    if len(recent) >= MANY:
        reasons.append(f"{MANY} or more crashes within a minute")
    if fleet.outcome:
        reasons.append(fleet.outcome)
    return {"live": True, "ready": ready, "degraded": bool(reasons), "reasons": reasons}


def table(described: dict[str, Any]) -> str:
    """What `describe` gave, for people."""
    rows = [_COLUMNS, *(_row(slot) for slot in described["slots"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    head = f"chicoryd {described['pid']} {described['state']} for {_age(described['uptime'])}: {described['summary']}"
    return "\n".join([head, *lines, *(line for slot in described["slots"] for line in _running(slot))])


def _running(slot: dict[str, Any]) -> list[str]:
    beat = cast("dict[str, Any]", slot["beat"] or {})
    tasks = cast("list[dict[str, Any]]", beat.get("tasks") or [])
    return [f"{slot['slot']} runs {task['name']} ({task['id']}) for {_age(task['age'])}" for task in tasks[:_SHOWN]]


def _row(slot: dict[str, Any]) -> tuple[str, ...]:
    beat = cast("dict[str, Any]", slot["beat"] or {})
    up = f"in {_age(slot['starts_in'])}" if slot["starts_in"] is not None else _age(slot["uptime"])
    return (
        slot["slot"],
        slot["state"],
        str(slot["generation"]),
        str(slot["incarnation"]),
        _shown(slot["pid"]),
        up,
        str(slot["restarts"]),
        _shown(beat.get("running")),
        f"{beat['lag'] * 1000:.0f} ms" if isinstance(beat.get("lag"), int | float) else "-",
        f"{beat['rss'] / 2**20:.0f} MB" if isinstance(beat.get("rss"), int | float) else "-",
        slot["last_end"] or "-",
    )


def _shown(value: object) -> str:
    return "-" if value is None else str(value)


def _age(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(int(seconds) // 60, 60)
    days, rest = divmod(hours, 24)
    return f"{days} d {rest} h" if days else f"{hours} h {minutes} min" if hours else f"{minutes} min"
