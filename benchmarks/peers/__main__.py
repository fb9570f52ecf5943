"""`python -m benchmarks.peers`: run what is asked for, and write the results and the page."""

import json
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import click

from benchmarks.peers import book as books
from benchmarks.peers.book import Book, Run, Slot
from benchmarks.peers.page import amount, metric, page, readme, verdicts
from benchmarks.peers.plots import draw
from benchmarks.peers.roster import OURS, Peer, install, roster
from benchmarks.peers.session import Failed
from benchmarks.peers.verdicts import BARE
from benchmarks.peers.workloads import WORKLOADS, Stage, Workload, bare
from benchmarks.server import private_server
from benchmarks.table import conditions
from examples.node import NodeFailed, private_node

_HERE = Path(__file__).parent
_RESULTS = _HERE / "results.json"
_PAGE = _HERE.parents[1] / "docs" / "benchmarks.md"


def _chosen(
    known: Callable[[], list[str]],
) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    def check(_: click.Context, __: click.Parameter, text: str) -> list[str]:
        names = [name for name in text.split(",") if name] or known()
        if unknown := [name for name in names if name not in known()]:
            raise click.BadParameter(f"not known: {', '.join(unknown)}; known: {', '.join(known())}")
        return [name for name in known() if name in names]

    return check


def _peers() -> list[str]:
    return [peer.key for peer in roster() if peer.key != OURS]


@click.command()
@click.option("--peers", "keys", default="", callback=_chosen(_peers), help="Queues beside ours, by commas; all.")
@click.option("--workloads", "names", default="", callback=_chosen(lambda: list(WORKLOADS)), help="By commas; all.")
@click.option("--rounds", default=5, type=click.IntRange(0), show_default=True, help="How often each is run.")
@click.option("--results", default=_RESULTS, type=click.Path(path_type=Path), show_default=True, help="Kept here.")
@click.option("--page", "written", default=_PAGE, type=click.Path(path_type=Path), show_default=True)
@click.option("--readme", "into", type=click.Path(path_type=Path, exists=True), help="Put the aims into this README.")
@click.option("--continue", "go_on", is_flag=True, help="Add what is missing to the results that are there.")
def main(
    keys: list[str], names: list[str], rounds: int, results: Path, written: Path, into: Path | None, go_on: bool
) -> None:
    """Measure Chicory beside other task queues.

    With 0 rounds and --continue it only writes the page again.
    """
    # Asked to end, it ends what it has started, as it does on Ctrl-C.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    peers = [peer for peer in roster() if peer.key in (OURS, *keys)]
    workloads = [WORKLOADS[name] for name in names]
    with ExitStack() as stack:
        server = stack.enter_context(private_server(loopback=True))
        book = books.load(results) if go_on and results.exists() else Book(_about(conditions(server)))
        for peer in peers if rounds else []:
            if why := install(peer):
                book.absent[peer.key] = why
                click.echo(f"{peer.name} cannot be installed: {why}", err=True)
        here = {peer.key: peer for peer in peers if peer.key not in book.absent}
        taking = {workload.key: _taking_part(workload, here) for workload in workloads}
        todo = [
            slot
            for slot in books.slots([(w.key, w.shared) for w in workloads], taking, rounds)
            if slot not in book.done
        ]
        node = None
        if any(WORKLOADS[slot.workload].broker == "rabbitmq" for slot in todo):
            try:
                node = stack.enter_context(private_node())
            except NodeFailed as failed:
                raise SystemExit(str(failed)) from failed
        stage = Stage(server, node)
        for number, slot in enumerate(todo, 1):
            began = time.monotonic()
            run = _run(stage, slot, here.get(slot.peer))
            book.runs.append(run)
            book.save(results)
            _tell(run, f"{number}/{len(todo)}", time.monotonic() - began)
    everyone = roster()
    pictures = written.parent / written.stem
    plots = draw(book, everyone, pictures)
    written.write_text(page(book, everyone, [f"{pictures.name}/{plot}" for plot in plots]))
    if into is not None:
        into.write_text(readme(into.read_text(), book, everyone))
    click.echo(f"\n{written} and {len(plots)} pictures in {pictures} are written; the figures are in {results}.")
    for found in verdicts(book, everyone):
        which = metric(found.aim.workload, found.aim.metric)
        state = {True: "met", False: "MISSED", None: "not known"}[found.met]
        times = "" if found.ratio is None else f", {found.ratio:.3g} times {found.best}'s {amount(found.theirs, which)}"
        click.echo(
            f"{state:9} {found.aim.workload} {which.key}: {amount(found.ours, which)}{times}; aim {found.aim.target}"
        )


def _taking_part(workload: Workload, here: dict[str, Peer]) -> list[str]:
    can = [
        peer.key
        for peer in here.values()
        if peer.key != OURS and workload.broker in peer.brokers and workload.key not in peer.cannot
    ]
    return [*can, BARE] if workload.key == "spin" else can


def _run(stage: Stage, slot: Slot, peer: Peer | None) -> Run:
    workload = WORKLOADS[slot.workload]
    try:
        return Run(slot, bare(workload) if peer is None else workload.run(stage, workload, peer))
    except Failed as failed:
        return Run(slot, failure=str(failed))


def _tell(run: Run, where: str, seconds: float) -> None:
    figures = {key: value if value is None else round(value, 3) for key, value in run.figures.items()}
    said = run.failure or json.dumps(figures)
    click.echo(f"{where} {run.slot.workload} {run.slot.peer}, {seconds:.0f} s: {said}", err=True)


def _about(about: dict[str, str]) -> dict[str, str]:
    return {**about, "server": about["server"].replace("on a unix socket", "on loopback")}


if __name__ == "__main__":
    main()
