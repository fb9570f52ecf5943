"""The same as pictures: for each workload a bar for each queue."""

import math
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.book import Book
from benchmarks.peers.page import amount, metric, name_of
from benchmarks.peers.roster import OURS, Peer
from benchmarks.peers.verdicts import middle
from benchmarks.peers.workloads import CAP, WORKLOADS, Metric

# Each picture, with what it shows, side by side.
PICTURES = {
    "throughput": (("noop2", "rate"), ("sleep", "rate"), ("spin", "rate"), ("rabbitmq", "rate")),
    "sending": (("bulk", "rate"), ("single", "rate")),
    "waiting": (("latency", "p99"), ("due", "p99"), ("kill", "back")),
    "idle": (("idle", "extra"), ("idle", "commands")),
}
_OURS, _THEIRS, _NEVER = "#2f6f4f", "#9aa5b1", "#e4c7c3"


def draw(book: Book, peers: Sequence[Peer], directory: Path) -> list[str]:
    """Write a PNG for each picture of which there is something to show; returns their names."""
    # Imported here, because nothing else needs it and many machines have it not.
    from matplotlib.figure import Figure

    directory.mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    for name, panels in PICTURES.items():
        shown = [panel for panel in panels if bars(book, peers, *panel)]
        if not shown:
            continue
        picture = Figure(figsize=(4.6 * len(shown), 3.6), layout="constrained")
        for axes, (workload, key) in zip(picture.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            which = metric(workload, key)
            found = bars(book, peers, workload, key)
            labels = [name_of(peers, peer) for peer, _ in found]
            widths = [CAP if value is None else value for _, value in found]
            colors = [_OURS if peer == OURS else _NEVER if value is None else _THEIRS for peer, value in found]
            drawn = axes.barh(labels, widths, color=colors)
            axes.bar_label(drawn, [_label(value, which) for _, value in found], padding=3, fontsize=8)
            if _wide(widths):
                axes.set_xscale("log")
            axes.margins(x=0.25)
            axes.invert_yaxis()
            axes.tick_params(labelsize=8)
            axes.set_title(f"{WORKLOADS[workload].title}\n{which.title}", fontsize=9, loc="left")
            axes.spines[["top", "right"]].set_visible(False)
        picture.savefig(directory / f"{name}.png", dpi=110)
        names.append(f"{name}.png")
    return names


def bars(book: Book, peers: Sequence[Peer], workload: str, key: str) -> list[tuple[str, float | None]]:
    """The queues that took part, best first; None for one whose wait was given up."""
    which = metric(workload, key)
    ran = {run.slot.peer for run in book.runs if run.slot.workload == workload and run.figures}
    found = [(peer.key, middle(book, workload, peer.key, key)) for peer in peers if peer.key in ran]

    def place(bar: tuple[str, float | None]) -> float:
        value = bar[1]
        return math.inf if value is None else value if which.less else -value

    return sorted(found, key=place)


def _label(value: float | None, which: Metric) -> str:
    return f"more than {CAP:g} s" if value is None else amount(value, which)


def _wide(widths: Sequence[float]) -> bool:
    """Whether the widths are so far apart that the small ones would not be seen."""
    return min(widths) > 0 and max(widths) / min(widths) > 30
