"""What fault tests come to: a line for each, and a table of all.  Pure."""

from collections.abc import Iterable

import attrs

from benchmarks.figures import percentile

BEGIN, END = "<!-- make faults: begin -->", "<!-- make faults: end -->"
HEAD = (
    "| | tasks | faults noted | lost | ran again | for no reason | two at once | early | made up | recovery | p99 |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)


@attrs.frozen
class Figures:
    """What the books of a test come to.

    again: runs beyond the first of a task.  unexplained: tasks among these whose runs no fault met.
    recoveries: seconds, for each fault after which something was still to be done.
    """

    tasks: int = 0
    faults: int = 0
    lost: int = 0
    again: int = 0
    unexplained: int = 0
    overlapping: int = 0
    early: int = 0
    phantom: int = 0
    recoveries: tuple[float, ...] = ()

    def __add__(self, other: "Figures") -> "Figures":
        ours, theirs = attrs.astuple(self, recurse=False), attrs.astuple(other, recurse=False)
        return Figures(*(one + another for one, another in zip(ours, theirs, strict=True)))

    def __str__(self) -> str:
        again = f"ran again {self.again}"
        if self.again:
            again += f" ({self.unexplained} for no reason)" if self.unexplained else " (all in flight at a fault)"
        counts = [f"{self.tasks} tasks", f"lost {self.lost}", again]
        counts += [f"two at once {self.overlapping}", f"early {self.early}", f"made up {self.phantom}"]
        if self.recoveries:
            counts.append(f"recovery p99 {percentile(self.recoveries, 0.99):.2f} s of {self.faults} faults")
        return ", ".join(counts)


def total(pages: Iterable[Figures]) -> Figures:
    """All *pages* as one."""
    return sum(pages, Figures())


def title(nodeid: str) -> str:
    """What a test is called where people read it: its name as a sentence, and its parameters.

    Two that are called alike are of different servers, which their files tell.
    """
    file, _, name = nodeid.partition("::")
    name, _, parameters = name.partition("[")
    words = name.removeprefix("test_").replace("_", " ")
    beside = [word for word in (_server(file), parameters.removesuffix("]").replace("|", "/")) if word]
    return f"{words} ({', '.join(beside)})" if beside else words


def _server(file: str) -> str:
    return {"test_rabbitmq": "RabbitMQ", "test_rabbitmq_cluster": "RabbitMQ cluster"}.get(
        file.rpartition("/")[2].removesuffix(".py"), ""
    )


def row(name: str, figures: Figures) -> str:
    """The line of the table for the test called *name*."""
    times = [f"{percentile(figures.recoveries, part):.2f} s" if figures.recoveries else "" for part in (0.5, 0.99)]
    counts = [figures.tasks, figures.faults, figures.lost, figures.again, figures.unexplained]
    counts += [figures.overlapping, figures.early, figures.phantom]
    return f"| {' | '.join([name, *map(str, counts), *times])} |"


def names(page: str) -> list[str]:
    """What the rows of the table in *page* are called."""
    return list(_rows(page))


def renewed(page: str, found: dict[str, Figures]) -> str:
    """*page* with the rows of *found* in its table, beside those of tests that did not run this time."""
    rows = _rows(page) | {name: row(name, figures) for name, figures in found.items()}
    table = "\n".join([*HEAD, *(rows[name] for name in sorted(rows))])
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def _rows(page: str) -> dict[str, str]:
    if BEGIN not in page or END not in page:
        raise ValueError(f"a page of fault figures has the lines {BEGIN} and {END}")
    lines = page.partition(BEGIN)[2].partition(END)[0].splitlines()
    return {line[2:].partition(" | ")[0]: line for line in lines if line.startswith("| ") and line[2] != "|"}
