"""The page that shows a comparison, in Markdown.  Pure."""

from collections.abc import Sequence

from benchmarks.peers.book import Book
from benchmarks.peers.roster import OURS, Peer
from benchmarks.peers.verdicts import AIMS, BARE, Verdict, middle, ratio, runs_of, verdict, worst
from benchmarks.peers.workloads import CAP, WORKLOADS, Metric, Workload

_OPENING = """\
# Beside other task queues

`make bench-peers` made this page, and makes it again: it installs each queue into an environment of its own, starts it
the way its users do, and has all do the same on one private server, ours in turn with the others.  What ran is counted
by what the tasks themselves wrote to a file, one record a run, which is the same for all.  How many tasks a run has is
chosen so that it takes some seconds; of a run that is given up after a while, what it did until then counts."""

_AIMED = """\
## What was aimed at

The other is the best of those that deliver at least once, and of latencies the best of all.  Counts that should be 0
are the worst of all rounds."""

_BEGIN, _END = "<!-- peers -->", "<!-- end of peers -->"


def page(book: Book, peers: Sequence[Peer], plots: Sequence[str] = ()) -> str:
    """All of it; *plots* are links to pictures, relative to the page."""
    parts = [
        _OPENING,
        _conditions(book),
        *[f"![{plot}]({plot})" for plot in plots],
        *([f"{_AIMED}\n\n{_aims(book, peers)}"] if book.runs else []),
        *[_workload(book, workload, peers) for workload in WORKLOADS.values() if _runs(book, workload)],
        "## How each was set up\n\n" + "\n\n".join(_settings(book, peer) for peer in peers),
    ]
    return "\n\n".join(parts) + "\n"


def verdicts(book: Book, peers: Sequence[Peer]) -> list[Verdict]:
    """What became of each aim whose workload was run."""
    others = [peer.key for peer in peers if peer.key != OURS]
    safe = [peer.key for peer in peers if peer.key != OURS and peer.at_least_once]
    return [
        verdict(book, aim, metric(aim.workload, aim.metric), safe, others)
        for aim in AIMS
        if _runs(book, WORKLOADS[aim.workload])
    ]


def metric(workload: str, key: str) -> Metric:
    """A figure of a workload."""
    (found,) = [metric for metric in WORKLOADS[workload].metrics if metric.key == key]
    return found


def amount(value: float | None, metric: Metric) -> str:
    """A figure as people read it."""
    if value is None:
        return "–"
    unit = metric.unit if metric.unit.startswith("/") or not metric.unit else f" {metric.unit}"
    return f"{value:,.{metric.digits}f}".replace(",", " ") + unit


def name_of(peers: Sequence[Peer], key: str) -> str:
    """What a queue is called."""
    if key == BARE:
        return "a loop without a queue"
    return next((peer.name for peer in peers if peer.key == key), key)


def readme(text: str, book: Book, peers: Sequence[Peer]) -> str:
    """The README *text* with what was aimed at between its two marks."""
    before, mark, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not mark or not end:
        raise ValueError(f"the README has no {_BEGIN} and {_END}")
    rounds = len({run.slot.round for run in book.runs})
    about = f"{_count(rounds)} on {book.about['cores']} cores, {book.about['python']}, {book.about['server']}."
    return f"{before}{_BEGIN}\n{about}\n\n{_aims(book, peers)}\n{_END}{after}"


def _count(rounds: int) -> str:
    return f"Medians of {rounds} rounds" if rounds > 1 else "One round"


def _runs(book: Book, workload: Workload) -> bool:
    return any(run.slot.workload == workload.key for run in book.runs)


def _conditions(book: Book) -> str:
    rounds = _count(len({run.slot.round for run in book.runs})) if book.runs else "Not run yet"
    lines = [f"- {key}: {value}" for key, value in book.about.items()]
    return "\n".join([*lines, f"- {rounds.lower()}; a dash is what there is no figure for"])


def _aims(book: Book, peers: Sequence[Peer]) -> str:
    rows = ["| | Chicory | the best other | ratio | aim | |", "|---|---|---|---|---|---|"]
    for found in verdicts(book, peers):
        which = metric(found.aim.workload, found.aim.metric)
        rival = f"{name_of(peers, found.best)}: {amount(found.theirs, which)}" if found.best else ""
        rows.append(
            f"| {WORKLOADS[found.aim.workload].title}: {which.title} | {amount(found.ours, which)} | {rival} "
            f"| {'' if found.ratio is None else f'{found.ratio:.3g}'} | {found.aim.target} "
            f"| { {True: 'met', False: '**missed**', None: 'not known'}[found.met] } |"
        )
    return "\n".join(rows)


def _workload(book: Book, workload: Workload, peers: Sequence[Peer]) -> str:
    first = workload.metrics[0]
    heads = [f"{one.title}" for one in workload.metrics]
    rows = [f"| | {' | '.join(heads)} | ours to theirs |", "|---" * (len(heads) + 2) + "|"]
    keys = [peer.key for peer in peers] + ([BARE] if runs_of(book, workload.key, BARE) else [])

    def place(key: str) -> float:
        value = middle(book, workload.key, key, first.key)
        return float("inf") if value is None else value if first.less else -value

    for key in sorted(keys, key=place):
        cells = [_cell(book, workload, key, one) for one in workload.metrics]
        why = _why_not(book, workload, next((peer for peer in peers if peer.key == key), None))
        times = ratio(book, workload.key, key, first.key) if key != OURS else None
        last = why or ("" if times is None else f"{times:.3g}")
        bold = "**" if key == OURS else ""
        rows.append(f"| {bold}{name_of(peers, key)}{bold} | {' | '.join(cells)} | {last} |")
    return f"## {workload.title[0].upper()}{workload.title[1:]}\n\n" + "\n".join(rows)


def _cell(book: Book, workload: Workload, key: str, one: Metric) -> str:
    if not one.unit and one.less:
        return amount(worst(book, workload.key, key, one.key), one)
    value = middle(book, workload.key, key, one.key)
    given_up = value is None and one.unit == "s" and runs_of(book, workload.key, key)
    return f"> {CAP:g} s" if given_up else amount(value, one)


def _why_not(book: Book, workload: Workload, peer: Peer | None) -> str:
    """Why a queue has no figures, or not all of them."""
    if peer is None:
        return ""
    if peer.key in book.absent:
        return "not installed"
    if workload.key in peer.cannot:
        return peer.cannot[workload.key]
    if workload.broker not in peer.brokers:
        return f"has no {workload.broker}"
    failures = [
        run.failure
        for run in book.runs
        if (run.slot.workload, run.slot.peer) == (workload.key, peer.key) and run.failure
    ]
    return f"failed: {failures[-1][:120]}".replace("|", "/") if failures else ""


def _settings(book: Book, peer: Peer) -> str:
    about = f"{', '.join(peer.requirements)}. " if peer.key != OURS else ""
    absent = f"\n\nIt could not be installed: {book.absent[peer.key]}" if peer.key in book.absent else ""
    promise = "" if peer.at_least_once else " (at most once)"
    return f"### {peer.name}{promise}\n\n{about}{peer.settings}{absent}"
