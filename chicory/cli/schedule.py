"""Show what tasks send themselves and when, pause and resume it, or check a cron line."""

import json
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from chicory.cli.config import file_option

if TYPE_CHECKING:
    from chicory.app import Chicory
    from chicory.brokers.base import Timetable

T = TypeVar("T")

app_option = click.option("--app", metavar="MODULE:APP", help="The app; else what the settings call app.")
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object, for programs.")
count_option = click.option(
    "-n", "--count", type=click.IntRange(1, 1000), default=5, show_default=True, help="So many slots."
)


@click.group()
def schedule() -> None:
    """Schedules: what @app.cron and @app.every declare.  Instants are shown in the schedule's time zone."""


@schedule.command()
@file_option
@app_option
@json_option
def ls(file: Path | None, app: str | None, as_json: bool) -> None:
    """List the schedules: what each says, whether it is paused, the slot that was fired last and the next one.

    `gone` is what the broker remembers and the code no longer has.
    """
    loaded = _load(app, file)
    entries = [one.entry for one in loaded.schedules.values()]
    look = _ask(loaded, lambda timetable: timetable.look(entries, begin=False))
    rows: list[dict[str, str | None]] = []
    for one in loaded.schedules.values():
        known = look.known.get(one.name)
        following = one.timing.after(max(look.now, known.mark) if known else look.now)
        fired = known.fired if known else None
        rows.append(
            {
                "name": one.name,
                "when": str(one.timing),
                "task": one.task.name,
                "misfire": one.misfire,
                "state": "paused" if known and known.paused else "active",
                "last": None if fired is None else _iso(one.timing.local(fired)),
                "next": _iso(one.timing.local(following)),
            }
        )
    rows += [
        {"name": name, "when": known.definition, "task": None, "misfire": None, "state": "gone"}
        | {"last": None if known.fired is None else _iso(datetime.fromtimestamp(known.fired, UTC)), "next": None}
        for name, known in sorted(look.known.items())
        if name not in loaded.schedules
    ]
    _print("schedules", rows, as_json)


@schedule.command("next")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@count_option
@file_option
@app_option
@json_option
def following(names: tuple[str, ...], count: int, file: Path | None, app: str | None, as_json: bool) -> None:
    """List the slots that come next, of all schedules that are not paused or of those called NAME."""
    import heapq

    loaded = _load(app, file)
    chosen = [loaded.schedules.find(name) for name in names] if names else list(loaded.schedules.values())
    entries = [one.entry for one in chosen]
    look = _ask(loaded, lambda timetable: timetable.look(entries, begin=False))
    waiting = [(one.timing.after(look.now), one.name) for one in chosen]
    waiting = [(slot, name) for slot, name in waiting if name not in look.known or not look.known[name].paused]
    heapq.heapify(waiting)
    rows: list[dict[str, str | None]] = []
    while waiting and len(rows) < count:
        slot, name = waiting[0]
        timing = loaded.schedules[name].timing
        rows.append({"slot": _iso(timing.local(slot)), "name": name})
        heapq.heapreplace(waiting, (timing.after(slot), name))
    _print("slots", rows, as_json)


@schedule.command()
@click.argument("name")
@file_option
@app_option
def pause(name: str, file: Path | None, app: str | None) -> None:
    """Fire nothing of NAME until it is resumed, whichever schedulers start or end."""
    loaded = _load(app, file)
    entry = loaded.schedules.find(name).entry
    changed = _ask(loaded, lambda timetable: timetable.pause(entry))
    click.echo(f"{name} is paused." if changed else f"{name} was paused already.", err=True)


@schedule.command()
@click.argument("name")
@file_option
@app_option
def resume(name: str, file: Path | None, app: str | None) -> None:
    """Go on with NAME from its next slot; what the pause left out stays out."""
    loaded = _load(app, file)
    entry = loaded.schedules.find(name).entry
    changed = _ask(loaded, lambda timetable: timetable.resume(entry))
    click.echo(f"{name} goes on." if changed else f"{name} was not paused.", err=True)


@schedule.command()
@click.argument("line")
@click.option("--tz", default="UTC", show_default=True, help="The time zone, like Europe/Rome.")
@count_option
@json_option
def check(line: str, tz: str, count: int, as_json: bool) -> None:
    """Say what a cron LINE means and when it fires next by this machine's clock; exit 64 when it is wrong."""
    import time

    from chicory.schedules.timing import Cron

    timing, slot = Cron(line, tz), time.time()
    slots: list[str] = []
    for _ in range(count):
        slot = timing.after(slot)
        slots.append(_iso(timing.local(slot)))
    if as_json:
        click.echo(json.dumps({"schema": 1, "line": line, "tz": tz, "means": timing.explain(), "slots": slots}))
        return
    click.echo("\n".join([f"{timing.explain()} ({tz})", *slots]))


def _load(where: str | None, file: Path | None) -> "Chicory":
    from chicory.config import load_config
    from chicory.errors import ConfigError
    from chicory.loading import import_app
    from chicory.process import refuse_memory

    where = where or load_config(file).app
    if where is None:
        raise ConfigError('no app is named; say --app module:app, or write app = "module:app" in the settings')
    loaded = import_app(where)
    loaded.configure(file)
    refuse_memory(loaded.config)
    return loaded


def _ask(app: "Chicory", question: "Callable[[Timetable], Awaitable[T]]") -> T:
    """What the timetable of the app's broker answers."""
    import trio

    from chicory.errors import ConfigError

    async def ask() -> T:
        async with app:
            timetable = app.broker.timetable()
            if timetable is None:
                raise ConfigError("this broker cannot fire schedules; use another one for them")
            return await question(timetable)

    return trio.run(ask)


def _print(what: str, rows: list[dict[str, str | None]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"schema": 1, what: rows}, indent=2))
    elif rows:
        lines = [[name.upper() for name in rows[0]], *([value or "-" for value in row.values()] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            click.echo(_padded(line, widths).rstrip())


def _padded(words: Iterable[str], widths: Iterable[int]) -> str:
    return "  ".join(f"{word:<{width}}" for word, width in zip(words, widths, strict=True))


def _iso(instant: datetime) -> str:
    return instant.isoformat(timespec="milliseconds" if instant.microsecond else "seconds")
