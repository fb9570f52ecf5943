"""Delayed tasks that are due one after another, on an idle worker."""

import time
from datetime import UTC, datetime

import trio

from benchmarks.figures import Figure, Target, percentile
from benchmarks.process import process
from benchmarks.server import Server
from chicory import Chicory, TaskMessage

TASKS = 200
_APART = 0.01
# Long enough to publish them all before the first is due.
_AHEAD = 1.0
_MILLI = 1000


def measure(server: Server, rounds: int) -> list[Figure]:
    """Milliseconds from the instant a task is due, by the server's clock, to its first line."""
    late = [_lateness(server) for _ in range(rounds)]

    def line(name: str, values: list[float], target: Target | None) -> Figure:
        return Figure(group="punctual", name=name, unit="ms", ours=values, target=target, digits=1)

    name = f"{TASKS} delayed tasks, one due each {_APART * _MILLI:g} ms, late by"
    return [
        line(f"{name}, p50", [percentile(values, 0.5) * _MILLI for values in late], None),
        line("the same, p99", [percentile(values, 0.99) * _MILLI for values in late], Target(20, True, absolute=True)),
        line("the same, the earliest", [min(values) * _MILLI for values in late], None),
    ]


def _lateness(server: Server) -> list[float]:
    server.flush()
    with process("benchmarks.worker", "--concurrency", 32, "--until", TASKS, url=server.url) as worker:
        worker.await_ready()
        first = round(server.now() + _AHEAD, 6)
        trio.run(_publish, server.url, first)
        # Workers write down the wall clock; the server's may differ, if only by how it is read.
        ahead = server.now() - time.time()
        started: list[tuple[int, float]] = worker.finish()["started"]
    return [at + ahead - (first + number * _APART) for number, at in started]


async def _publish(url: str, first: float) -> None:
    etas = [datetime.fromtimestamp(first + number * _APART, UTC) for number in range(TASKS)]
    async with Chicory(url) as app:
        await app.publish_many(
            [TaskMessage(name="note_start", args=[number], eta=eta) for number, eta in enumerate(etas)]
        )
