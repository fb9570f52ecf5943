"""Send a task for every file, collect the results, show what else a queue does, and check the books."""

import sysconfig
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import trio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from chicory import DLQMessage, RemoteTaskError
from examples.census.daemon import running_daemon
from examples.census.report import not_once, totals_table
from examples.census.tasks import Measure, app, clock, fragile, measure


def source_files(library: Path) -> list[Path]:
    """Every Python file of the standard library, without what was installed into it."""
    found = (path.relative_to(library) for path in library.rglob("*.py") if path.is_file())
    return sorted(library / path for path in found if path.parts[0] not in ("site-packages", "dist-packages"))


async def census(config: str, console: Console) -> bool:
    """Do the whole job under a daemon of its own; True when every file was processed exactly once and it ended well."""
    library = Path(sysconfig.get_path("stdlib"))
    files = source_files(library)
    with tempfile.TemporaryDirectory() as directory:
        tally = Path(directory, "tally")
        tally.touch()
        async with running_daemon(config) as daemon:
            measures = await measure_all(files, str(tally), console)
            console.print(totals_table(library, measures))
            on_time = await show_delayed(console)
            buried = await show_dead_letter(console)
            await app.aclose()
        wrong = not_once(files, tally.read_text())
    for line in wrong:
        console.print(f"[red]not exactly once[/]: {line}")
    ended = f"chicoryd has drained and ended with {daemon.returncode}"
    console.print(f"{len(files)} files, {len(files) - len(wrong)} of them processed exactly once; {ended}")
    return not wrong and len(measures) == len(files) and on_time and buried and daemon.returncode == 0


async def measure_all(files: list[Path], tally: str, console: Console) -> dict[Path, Measure]:
    """What the workers found, by file."""
    measures: dict[Path, Measure] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("measuring", total=len(files))

        async def one(path: Path) -> None:
            result = await measure.delay(str(path), tally)
            measures[path] = await result.get()
            progress.advance(bar)

        async with trio.open_nursery() as nursery:
            for path in files:
                nursery.start_soon(one, path)
    return measures


async def show_delayed(console: Console) -> bool:
    """Run a task a second and a half from now; False when it ran early."""
    due = time.time() + 1.5
    result = await clock.options(eta=datetime.fromtimestamp(due, UTC)).delay()
    late = await result.get() - due
    console.print(f"a task for 1.5 s later ran {late * 1000:.1f} ms after it was due")
    return late >= 0


async def show_dead_letter(console: Console) -> bool:
    """Run a task that fails, and find it among the dead letters; False when it is not there."""
    result = await fragile.delay("the printer")
    try:
        await result.get()
    except RemoteTaskError as failed:
        console.print(f"a task that fails has failed: {failed.failure}")
    letter = await find_letter(result.id)
    if letter is None:
        console.print("[red]it is not among the dead letters[/]")
        return False
    console.print(f"its dead letter: {letter.task_name}, {letter.retry_count} retries, {letter.error}")
    return await app.broker.delete_from_dlq(letter.message_id, "default")


async def find_letter(task_id: str) -> DLQMessage | None:
    """The dead letter of a task, page by page from the oldest on."""
    start = ""
    while letters := await app.broker.get_dlq_messages("default", start=start):
        for letter in letters:
            if letter.task_id == task_id:
                return letter
        start = letters[-1].message_id
    return None
