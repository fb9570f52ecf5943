"""The table."""

import os
import platform
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure
from benchmarks.server import Server


def conditions(server: Server) -> dict[str, str]:
    """What the figures depend on."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "server": f"Redis {server.info('server')['redis_version']} on a unix socket, nothing on disk",
        "cores": str(os.cpu_count()),
        "load before": f"{os.getloadavg()[0]:.1f}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def show(figures: Sequence[Figure], about: dict[str, str], rounds: int) -> None:
    """Print everything."""
    table = Table(
        box=SIMPLE_HEAD,
        title="Chicory beside a bare loop",
        caption=f"Medians of {rounds} rounds, bare and ours in turn; the ratio is the median of the rounds' ratios. "
        "Idle figures are one stretch. Bare: a blocking socket and hiredis; no leases, fences or retries.",
    )
    table.add_column("measure")
    for heading in ("ours", "bare", "ratio", "target"):
        table.add_column(heading, justify="right")
    table.add_column("")
    group = ""
    for figure in figures:
        if group and figure.group != group:
            table.add_section()
        group = figure.group
        table.add_row(*_cells(figure))
    console = Console(width=None if os.isatty(1) else 140)
    console.print("\n".join(f"{key}: {value}" for key, value in about.items()))
    console.print(table)


def _cells(figure: Figure) -> list[str]:
    unit = figure.unit if figure.unit.startswith("/") or not figure.unit else f" {figure.unit}"

    def amount(value: float | None) -> str:
        return "" if value is None else f"{value:,.{figure.digits}f}".replace(",", " ") + unit

    return [
        figure.name,
        amount(figure.our_median),
        amount(figure.bare_median),
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        "" if figure.target is None else str(figure.target),
        {True: "[green]met[/]", False: "[red]missed[/]", None: ""}[figure.met],
    ]
