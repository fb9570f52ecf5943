"""The fleet as `chicoryd status` shows it.  Pure."""

from typing import Any, cast

from chicoryd.roster import Fleet, summary
from chicoryd.slot import Slot

_COLUMNS = ("SLOT", "STATE", "PID", "UP", "RESTARTS", "RUNNING", "LAG", "MEMORY", "LAST END")


def describe(fleet: Fleet, now: float) -> dict[str, Any]:
    """Everything there is to know, in values that JSON has.  Seconds are ages, not instants."""
    return {
        "summary": summary(fleet),
        "state": "stopping" if fleet.stopping else "running" if fleet.ready else "starting",
        "uptime": round(now - fleet.born, 3),
        "slots": [_describe_slot(fleet, slot, now) for slot in fleet.slots],
    }


def _describe_slot(fleet: Fleet, slot: Slot, now: float) -> dict[str, Any]:
    known = slot.pid is not None
    return {
        "slot": slot.name,
        "state": slot.state.value,
        "pid": slot.pid,
        "consumer": fleet.consumer(slot) if known else None,
        "uptime": round(now - slot.born, 3) if known else None,
        "starts_in": max(round(slot.due - now, 3), 0.0) if not slot.up and slot.due is not None else None,
        "restarts": slot.restarts,
        "failures": slot.failures,
        "last_end": slot.ended,
        "beat": dict(slot.beat) or None,
        "beat_age": round(now - slot.beat_at, 3) if slot.beat else None,
    }


def table(described: dict[str, Any]) -> str:
    """What `describe` gave, for people."""
    rows = [_COLUMNS, *(_row(slot) for slot in described["slots"])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    head = f"chicoryd {described['pid']} {described['state']} for {_age(described['uptime'])}: {described['summary']}"
    return "\n".join([head, *lines])


def _row(slot: dict[str, Any]) -> tuple[str, ...]:
    beat = cast("dict[str, Any]", slot["beat"] or {})
    up = f"in {_age(slot['starts_in'])}" if slot["starts_in"] is not None else _age(slot["uptime"])
    return (
        slot["slot"],
        slot["state"],
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
