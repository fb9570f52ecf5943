"""`python -m benchmarks`: measure, and print one table."""

import importlib
import json
from pathlib import Path

import click
from rich.console import Console

from benchmarks.figures import Figure
from benchmarks.server import private_server
from benchmarks.table import conditions, show

MEASURES = ("drain", "rabbitmq", "publish", "latency", "punctual", "burst", "idle", "memory", "validation")


def _chosen(_: click.Context, __: click.Parameter, text: str) -> tuple[str, ...]:
    names = tuple(name for name in text.split(",") if name)
    unknown = [name for name in names if name not in MEASURES]
    if unknown or not names:
        raise click.BadParameter(f"no measure is called {', '.join(unknown) or 'that'}; known: {', '.join(MEASURES)}")
    return names


@click.command()
@click.option("--only", "names", default=",".join(MEASURES), callback=_chosen, help="Measures, by commas.")
@click.option("--rounds", default=5, type=click.IntRange(1), show_default=True, help="How often each is measured.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write every round into this file, too.")
def main(names: tuple[str, ...], rounds: int, file: Path | None) -> None:
    """Measure Chicory beside a bare loop that does the same Redis commands in the same run.

    It says whether targets are met and judges nothing: the exit code is 0 either way.
    """
    figures: list[Figure] = []
    console = Console(stderr=True)
    with private_server() as server:
        about = conditions(server)
        for name in names:
            with console.status(f"{name} ..."):
                server.flush()
                figures += importlib.import_module(f"benchmarks.{name}").measure(server, rounds)
    show(figures, about, rounds)
    if file is not None:
        file.write_text(json.dumps({**about, "rounds": rounds, "figures": [f.as_json() for f in figures]}, indent=2))


if __name__ == "__main__":
    main()
