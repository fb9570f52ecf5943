"""What each queue is made to do, and which figures that gives."""

import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import attrs

from benchmarks import proc
from benchmarks.figures import percentile
from benchmarks.idle import busy, calls
from benchmarks.peers import journal
from benchmarks.peers.roster import PROGRAMS, Peer
from benchmarks.peers.session import Failed, Job, Session, session
from benchmarks.server import Server
from examples.node import Node

# A run fills about so many seconds, and gets so many at most.
SECONDS = 2.0
CAP = 45.0

SLEEPS = 20_000
DUE = 10_000
PACED = 200
PER_SECOND = 50.0
EXTRA = 2

# A queue that has just begun still opens connections and says so in Redis.
_SETTLE = 2.0
_READY = 30.0
_MILLI = 1e3
_MB = 1e6

Figures = dict[str, float | None]


class Stage:
    """The servers; each run gets them empty."""

    def __init__(self, server: Server, node: Node | None) -> None:
        self.server = server
        self._node = node
        self._vhosts = 0

    def job(self, workload: "Workload", processes: int) -> Job:
        """What a run of *workload* is told."""
        self.server.flush()
        redis = f"redis://127.0.0.1:{self.server.port}/0"
        broker = self._vhost() if workload.broker == "rabbitmq" else redis
        return Job(
            redis=redis,
            broker=broker,
            processes=processes,
            results=workload.results,
            waiting=workload.waiting,
            delays=workload.delays,
        )

    def _vhost(self) -> str:
        assert self._node is not None, "no RabbitMQ was started"
        self._vhosts += 1
        name = f"peers{self._vhosts}"
        self._node.evaluate(
            f'rabbit_vhost:add(<<"{name}">>, <<"guest">>), rabbit_auth_backend_internal:set_permissions(<<"guest">>,'
            f' <<"{name}">>, <<".*">>, <<".*">>, <<".*">>, <<"guest">>).'
        )
        return self._node.url(name)


@attrs.frozen
class Metric:
    """One figure of a workload; *less* is better, or more is."""

    key: str
    title: str
    unit: str
    less: bool = False
    digits: int = 0


@attrs.frozen(kw_only=True)
class Workload:
    """One thing to do.

    key: what it is called on the command line and in the results.
    metrics: what it gives, the one that counts first.
    shared: whether one run of ours a round is beside all others, because the figures differ by more than the machine's
        mood; else each has one right before it.
    """

    key: str
    title: str
    metrics: tuple[Metric, ...]
    run: Callable[[Stage, "Workload", Peer], Figures]
    processes: int = 2
    results: bool = True
    waiting: bool = False
    delays: bool = False
    broker: str = "redis"
    shared: bool = False


def drain(stage: Stage, workload: Workload, peer: Peer) -> Figures:
    """A full queue is emptied."""
    kind = "sleep" if workload.waiting else "noop"
    count = round(peer.rates[kind] * SECONDS * workload.processes)
    return _drained(stage, workload, peer, kind, min(count, SLEEPS) if workload.waiting else count)


def spin(stage: Stage, workload: Workload, peer: Peer) -> Figures:
    """The same with tasks that use a millisecond of CPU."""
    # So many more than the cores can do fill the time whatever a queue costs.
    return _drained(stage, workload, peer, "spin", round(min(1000, peer.rates["noop"]) * SECONDS * workload.processes))


def _drained(stage: Stage, workload: Workload, peer: Peer, kind: str, count: int) -> Figures:
    with _session(stage, workload, peer) as run:
        run.enqueue("bulk", kind, count)
        run.work()
        done = run.await_ended(count, CAP)
        events = run.events()
    return {
        "rate": journal.rate(events),
        "lost": journal.lost(events, count),
        "twice": journal.twice(events),
        "count": count,
        "capped": float(not done),
    }


def bare(workload: Workload) -> Figures:
    """The tasks of `spin` in as many processes, without a queue."""
    count = round(1000 * SECONDS)
    directory = Path(tempfile.mkdtemp(prefix="chicory-peers-"))
    try:
        record = directory / "journal"
        command = [sys.executable, str(PROGRAMS / "bare.py"), "spin"]
        children = [
            subprocess.Popen(
                [*command, str(number * count), str(count)], env={**os.environ, "PEER_JOURNAL": str(record)}
            )
            for number in range(workload.processes)
        ]
        for child in children:
            child.wait(CAP)
        events = journal.read(record)
    finally:
        shutil.rmtree(directory)
    whole = count * workload.processes
    return {"rate": journal.rate(events), "lost": journal.lost(events, whole), "twice": journal.twice(events)}


def enqueue(stage: Stage, workload: Workload, peer: Peer) -> Figures:
    """Tasks are sent, and nobody works."""
    how = workload.key
    with _session(stage, workload, peer) as run:
        told = run.enqueue(how, "noop", max(1000, round(peer.rates[how] * SECONDS / 2)))
    return {"rate": told["count"] / told["seconds"], "count": told["count"]}


def latency(stage: Stage, workload: Workload, peer: Peer) -> Figures:
    """Tasks come one by one to workers that wait for them."""
    with _ready(stage, workload, peer) as run:
        sent = run.enqueue("paced", "noop", PACED + 1, PER_SECOND)["sent"]
        run.await_ended(PACED + 1, CAP)
        values = journal.latencies(run.events(), sent)
    if not values:
        raise Failed("ran none of its tasks")
    return {
        "p50": percentile(values, 0.5) * _MILLI,
        "p99": percentile(values, 0.99) * _MILLI,
        "lost": PACED - len(values),
    }


def due(stage: Stage, workload: Workload, peer: Peer) -> Figures:
    """Many tasks are due at one instant."""
    with _ready(stage, workload, peer) as run:
        # Some know whole seconds only.
        instant = float(math.ceil(time.time() + 5 + 1.5 * DUE / peer.rates["single"]))
        if run.enqueue("due", "noop", DUE, instant)["early"] < 0:
            raise Failed(f"could not send {DUE} tasks in time")
        run.await_ended(DUE, CAP + instant - time.time())
        events = run.events()
    late = journal.lateness(events, instant - (time.time() - time.monotonic()))
    if late is None:
        raise Failed("ran none of its tasks")
    return {
        "p99": late.p99,
        "last": late.last,
        "first": late.first,
        "early": late.early,
        "lost": journal.lost(events, DUE),
        "twice": journal.twice(events),
    }


def term(stage: Stage, workload: Workload, peer: Peer) -> Figures:
    """Workers are asked to end in the middle, and started again."""
    count = _many(peer)
    with _held(stage, workload, peer, count) as run:
        run.await_records(count, CAP)  # Two for each task: half of the work.
        asked = time.monotonic()
        stopping = run.stop()
        run.work()
        done = run.await_ended(count, CAP, mending=True)
        time.sleep(_SETTLE)
        events = run.events()
    return {
        "stopping": stopping,
        "last": max(event.at for event in journal.ends(events)) - asked if done else None,
        "lost": journal.lost(events, count),
        "twice": journal.twice(events),
        "count": count,
    }


def kill(stage: Stage, workload: Workload, peer: Peer) -> Figures:
    """One process that works is killed, when all but a fifth is done; who does not replace it is started again."""
    count = _many(peer)
    with _held(stage, workload, peer, count) as run:
        run.await_records(round(1.6 * count), CAP)
        victim = run.events()[-1].pid
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        done = run.await_ended(count, CAP, mending=True)
        # Whatever runs again for no reason has this long to do so.
        time.sleep(_SETTLE)
        events = run.events()
    found = journal.recovery(events, killed, {victim})
    if not found.held:
        raise Failed("the process that was killed held nothing, so nothing had to come back")
    return {
        "back": found.back,
        "last": max(event.at for event in journal.ends(events)) - killed if done else None,
        "held": found.held,
        "lost": journal.lost(events, count),
        "twice": journal.twice(events),
        "unprovoked": found.unprovoked,
        "count": count,
    }


def idle(stage: Stage, workload: Workload, peer: Peer) -> Figures:
    """Workers have nothing to do; and then some more of them."""
    with _ready(stage, workload, peer) as run:
        began, before = time.monotonic(), calls(stage.server)
        share = busy(run.pids)
        commands = (calls(stage.server) - before) / (time.monotonic() - began)
        few = sum(map(proc.private_bytes, run.pids))
    with _ready(stage, workload, peer, workload.processes + EXTRA) as run:
        many = sum(map(proc.private_bytes, run.pids))
    return {"extra": (many - few) / EXTRA / _MB, "all": few / _MB, "commands": commands, "cpu": share}


def _many(peer: Peer) -> int:
    return min(SLEEPS, round(peer.rates["sleep"] * SECONDS))


@contextmanager
def _session(stage: Stage, workload: Workload, peer: Peer, processes: int = 0) -> Generator[Session]:
    with session(peer, stage.job(workload, processes or workload.processes)) as run:
        yield run


@contextmanager
def _ready(stage: Stage, workload: Workload, peer: Peer, processes: int = 0) -> Generator[Session]:
    with _session(stage, workload, peer, processes) as run:
        run.get_ready(_READY)
        time.sleep(_SETTLE)
        yield run


@contextmanager
def _held(stage: Stage, workload: Workload, peer: Peer, count: int) -> Generator[Session]:
    with _session(stage, workload, peer) as run:
        run.enqueue("bulk", "held", count)
        run.work()
        yield run


_RATE = (
    Metric("rate", "tasks per second", "/s"),
    Metric("lost", "not run", "", less=True),
    Metric("twice", "run twice", "", less=True),
)
_SENT = (Metric("rate", "sent per second", "/s"),)

WORKLOADS = {
    workload.key: workload
    for workload in (
        Workload(key="noop1", title="no-op tasks, results kept, 1 process", metrics=_RATE, run=drain, processes=1),
        Workload(key="noop2", title="no-op tasks, results kept, 2 processes", metrics=_RATE, run=drain),
        Workload(
            key="unkept1",
            title="no-op tasks, no results, 1 process",
            metrics=_RATE,
            run=drain,
            processes=1,
            results=False,
        ),
        Workload(key="unkept2", title="no-op tasks, no results, 2 processes", metrics=_RATE, run=drain, results=False),
        Workload(
            key="rabbitmq",
            title="no-op tasks on RabbitMQ, no results, 2 processes",
            metrics=_RATE,
            run=drain,
            results=False,
            broker="rabbitmq",
        ),
        Workload(key="sleep", title="tasks that sleep 10 ms, 2 processes", metrics=_RATE, run=drain, waiting=True),
        Workload(key="spin", title="tasks that use 1 ms of CPU, 2 processes", metrics=_RATE, run=spin),
        Workload(key="bulk", title="sending many at once", metrics=_SENT, run=enqueue),
        Workload(key="single", title="sending one after another", metrics=_SENT, run=enqueue),
        Workload(
            key="latency",
            title="from sending to the task's first line, 50 a second, 2 idle processes",
            metrics=(
                Metric("p50", "p50", "ms", less=True, digits=2),
                Metric("p99", "p99", "ms", less=True, digits=2),
            ),
            run=latency,
        ),
        Workload(
            key="term",
            title="SIGTERM in the middle, then started again; tasks of 10 ms",
            metrics=(
                Metric("last", "last task after", "s", less=True, digits=1),
                Metric("stopping", "stopped after", "s", less=True, digits=1),
                Metric("lost", "not run", "", less=True),
                Metric("twice", "run twice", "", less=True),
            ),
            run=term,
            waiting=True,
            shared=True,
        ),
        Workload(
            key="kill",
            title="SIGKILL of one process that works; tasks of 10 ms",
            metrics=(
                Metric("back", "what it held has run after", "s", less=True, digits=2),
                Metric("last", "last task after", "s", less=True, digits=1),
                Metric("held", "held", ""),
                Metric("lost", "not run", "", less=True),
                Metric("twice", "run twice", "", less=True),
                Metric("unprovoked", "run twice though not in flight", "", less=True),
            ),
            run=kill,
            waiting=True,
            shared=True,
        ),
        Workload(
            key="due",
            title="10 000 tasks due at one instant, 2 processes",
            metrics=(
                Metric("p99", "p99 late by", "s", less=True, digits=2),
                Metric("last", "last late by", "s", less=True, digits=2),
                Metric("early", "early", "", less=True),
                Metric("lost", "not run", "", less=True),
                Metric("twice", "run twice", "", less=True),
            ),
            run=due,
            delays=True,
            shared=True,
        ),
        Workload(
            key="idle",
            title="nothing to do, 2 processes",
            metrics=(
                Metric("extra", "private memory of one more process", "MB", less=True, digits=1),
                Metric("all", "private memory of all", "MB", less=True, digits=1),
                Metric("commands", "Redis commands", "/s", less=True, digits=1),
                Metric("cpu", "CPU of one core", "%", less=True, digits=2),
            ),
            run=idle,
            shared=True,
        ),
    )
}
