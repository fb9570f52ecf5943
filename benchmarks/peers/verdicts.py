"""How ours compares, and whether that is what was aimed at.  Pure."""

from collections.abc import Collection
from statistics import median

import attrs

from benchmarks.figures import Target
from benchmarks.peers.book import Book, Run
from benchmarks.peers.roster import OURS
from benchmarks.peers.workloads import Metric

BARE = "bare"


@attrs.frozen(kw_only=True)
class Aim:
    """What one figure of a workload is held to.

    target: of the ratio of ours to the best other's, the smaller the better where less is; or of our figure itself.
    against: "safe" for the best that delivers at least once, "all" for the best of all, or the key of one.
    """

    workload: str
    metric: str
    target: Target
    against: str = "safe"


def _more(limit: float) -> Target:
    return Target(limit)


def _less(limit: float) -> Target:
    return Target(limit, at_most=True)


def _within(limit: float) -> Target:
    return Target(limit, at_most=True, absolute=True)


AIMS = (
    Aim(workload="noop1", metric="rate", target=_more(15)),
    Aim(workload="noop2", metric="rate", target=_more(15)),
    Aim(workload="unkept1", metric="rate", target=_more(15)),
    Aim(workload="unkept2", metric="rate", target=_more(15)),
    Aim(workload="sleep", metric="rate", target=_more(6)),
    Aim(workload="spin", metric="rate", target=_more(0.95), against=BARE),
    Aim(workload="bulk", metric="rate", target=_more(8)),
    Aim(workload="single", metric="rate", target=_more(1)),
    Aim(workload="latency", metric="p50", target=_less(1), against="all"),
    Aim(workload="latency", metric="p99", target=_less(1), against="all"),
    Aim(workload="term", metric="lost", target=_within(0)),
    Aim(workload="term", metric="twice", target=_within(0)),
    Aim(workload="kill", metric="back", target=_less(1 / 20)),
    Aim(workload="kill", metric="lost", target=_within(0)),
    Aim(workload="kill", metric="unprovoked", target=_within(0)),
    Aim(workload="due", metric="p99", target=_less(1 / 8)),
    Aim(workload="due", metric="early", target=_within(0)),
    Aim(workload="idle", metric="extra", target=_less(1 / 4)),
    Aim(workload="idle", metric="commands", target=_within(1)),
)


@attrs.frozen
class Verdict:
    """What became of an aim: our figure, the best other's with its key, their ratio, and whether it was met."""

    aim: Aim
    ours: float | None
    best: str
    theirs: float | None
    ratio: float | None
    met: bool | None


def runs_of(book: Book, workload: str, peer: str) -> list[Run]:
    """Its runs that came to figures."""
    return [run for run in book.runs if run.slot.workload == workload and run.slot.peer == peer and run.figures]


def middle(book: Book, workload: str, peer: str, metric: str) -> float | None:
    """The median of a figure; None where more than half of the runs had none, such as a wait that was given up."""
    values = [run.figures.get(metric) for run in runs_of(book, workload, peer)]
    known = sorted(value for value in values if value is not None)
    if not known or len(known) <= len(values) / 2:
        return None
    # A figure that is missing was at least as long as any.
    return median([*known, *[float("inf")] * (len(values) - len(known))])


def worst(book: Book, workload: str, peer: str, metric: str) -> float | None:
    """The greatest of a figure: of counts that must be 0, none is forgiven by a median."""
    values = [run.figures.get(metric) for run in runs_of(book, workload, peer)]
    known = [value for value in values if value is not None]
    return max(known, default=None)


def ratio(book: Book, workload: str, peer: str, metric: str) -> float | None:
    """The median over rounds of our figure to that of *peer*, each taken from two runs side by side."""
    theirs = {run.slot.round: run.figures.get(metric) for run in runs_of(book, workload, peer)}
    ratios: list[float] = []
    for run in runs_of(book, workload, OURS):
        mine, other = run.figures.get(metric), theirs.get(run.slot.round)
        if run.slot.beside in ("", peer) and mine is not None and other:
            ratios.append(mine / other)
    return median(ratios) if ratios else None


def best(book: Book, workload: str, metric: Metric, peers: Collection[str]) -> str:
    """Whose figure is the best of *peers*; "" where none has one."""
    found = {peer: middle(book, workload, peer, metric.key) for peer in peers}
    known = {peer: value for peer, value in found.items() if value is not None}
    if not known:
        return ""
    return (min if metric.less else max)(known, key=lambda peer: known[peer])


def verdict(book: Book, aim: Aim, metric: Metric, safe: Collection[str], everybody: Collection[str]) -> Verdict:
    """What became of *aim*; *safe* are those that deliver at least once, neither has ours in it."""
    if aim.target.absolute:
        mine = worst(book, aim.workload, OURS, aim.metric) if aim.target.limit == 0 else None
        mine = middle(book, aim.workload, OURS, aim.metric) if mine is None else mine
        return Verdict(aim, mine, "", None, None, None if mine is None else aim.target.met(mine))
    among = {"safe": safe, "all": everybody}.get(aim.against, [aim.against])
    rival = best(book, aim.workload, metric, among)
    mine = middle(book, aim.workload, OURS, aim.metric)
    if not rival or mine is None:
        return Verdict(aim, mine, "", None, None, None)
    times = ratio(book, aim.workload, rival, aim.metric)
    met = None if times is None else aim.target.met(times)
    return Verdict(aim, mine, rival, middle(book, aim.workload, rival, aim.metric), times, met)
