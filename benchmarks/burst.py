"""Ten thousand delayed tasks that are due at one instant."""

import time
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import attrs
import trio

from benchmarks.figures import Figure, Target
from benchmarks.process import process
from benchmarks.server import Server
from chicory import Chicory, TaskMessage

TASKS = 10_000
WORKERS = 2
CONCURRENCY = 100
PREFETCH = 100
# Long enough to publish them all before.
_AHEAD = 2.0
_LOOK = 0.05


@attrs.frozen
class Burst:
    """What happened: seconds from the instant to the last start, and how many were not started once, in time."""

    seconds: float
    early: int
    twice: int
    never: int


def measure(server: Server, rounds: int) -> list[Figure]:
    """Seconds until the last was started, by the server's clock, and two counts that must be 0."""
    bursts = [_burst(server) for _ in range(rounds)]
    none = Target(0, at_most=True, absolute=True)
    name = f"{TASKS} tasks due at once, {WORKERS} workers of {CONCURRENCY} + {PREFETCH}: the last one started after"
    within = Target(0.6, at_most=True, absolute=True)

    def count(name: str, counts: list[int]) -> Figure:
        return Figure(group="burst", name=f"{name}, all rounds together", unit="", ours=[sum(counts)], target=none)

    return [
        Figure(group="burst", name=name, unit="s", ours=[b.seconds for b in bursts], target=within, digits=3),
        count("started too early", [b.early for b in bursts]),
        count("started twice", [b.twice for b in bursts]),
        count("never started", [b.never for b in bursts]),
    ]


def judge(started: list[tuple[int, float]], due: float, count: int) -> Burst:
    """What the numbers and instants of all starts say, when *count* were due at *due*.  Pure."""
    often = Counter(number for number, _ in started)
    return Burst(
        seconds=max((at for _, at in started), default=due) - due,
        early=sum(at < due for _, at in started),
        twice=sum(times > 1 for times in often.values()),
        never=count - len(often),
    )


def _burst(server: Server) -> Burst:
    server.flush()
    with ExitStack() as stack:
        arguments = ("--concurrency", CONCURRENCY, "--prefetch", PREFETCH)
        workers = [
            stack.enter_context(process("benchmarks.worker", *arguments, url=server.url)) for _ in range(WORKERS)
        ]
        for worker in workers:
            worker.await_ready()
        due = round(server.now() + _AHEAD, 6)
        trio.run(_publish, server.url, due)
        if server.now() >= due:
            raise SystemExit(f"{TASKS} messages could not be published within {_AHEAD} s")
        time.sleep(due - server.now())
        _await_empty(server)
        # Workers write down the wall clock; the server's may differ, if only by how it is read.
        ahead = server.now() - time.time()
        said: list[dict[str, Any]] = [worker.finish() for worker in workers]
    started = [(number, at + ahead) for one in said for number, at in one["started"]]
    return judge(started, due, TASKS)


async def _publish(url: str, due: float) -> None:
    eta = datetime.fromtimestamp(due, UTC)
    async with Chicory(url) as app:
        await app.publish_many([TaskMessage(name="note_start", args=[number], eta=eta) for number in range(TASKS)])


def _await_empty(server: Server) -> None:
    with server.connect() as connection:
        while connection.call("ZCARD", "chicory:delayed:default") or connection.call("XLEN", "chicory:stream:default"):
            time.sleep(_LOOK)
