"""What is shown: totals by package, and whether each file was processed exactly once."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.table import Table

from examples.census.tasks import Measure


def package_of(path: Path, library: Path) -> str:
    """The package *path* belongs to; modules outside of packages are counted together."""
    first, *rest = path.relative_to(library).parts
    return first if rest else "(modules)"


def totals_table(library: Path, measures: Mapping[Path, Measure]) -> Table:
    """A row for each package, the largest first, and the sum."""
    packages: dict[str, list[Measure]] = defaultdict(list)
    for path, found in measures.items():
        packages[package_of(path, library)].append(found)
    table = Table(title=f"Python's standard library, {library}", title_justify="left")
    table.add_column("package")
    for title in ("files", "lines", "functions", "classes", "kB", "not parsed"):
        table.add_column(title, justify="right")
    for name, found in sorted(packages.items(), key=lambda item: -_lines(item[1])):
        table.add_row(name, *_row(found))
    table.add_section()
    table.add_row("all", *_row(list(measures.values())), style="bold")
    return table


def _lines(measures: Iterable[Measure]) -> int:
    return sum(found["lines"] for found in measures)


def _row(measures: list[Measure]) -> list[str]:
    numbers = (
        len(measures),
        _lines(measures),
        sum(found["functions"] for found in measures),
        sum(found["classes"] for found in measures),
        sum(found["size"] for found in measures) // 1000,
        sum(found["error"] is not None for found in measures),
    )
    return [f"{number:,}" for number in numbers]


def not_once(files: Iterable[Path], tally: str) -> list[str]:
    """A line for each file that *tally*, one path a line, does not name exactly once; and for what is no file."""
    done = Counter(tally.splitlines())
    wrong = [f"{path}: {done[str(path)]} times" for path in files if done[str(path)] != 1]
    strangers = set(done) - {str(path) for path in files}
    return wrong + [f"{line}: never sent" for line in sorted(strangers)]
