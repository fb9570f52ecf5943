"""From `send()` to the first line of the task, on an idle worker in another process."""

import time

import trio

from benchmarks import bare
from benchmarks.figures import Figure, Target, percentile
from benchmarks.process import process
from benchmarks.server import Server
from benchmarks.tasks import note_latency
from chicory import Chicory

PER_SECOND = 50
TASKS = 150
_MICRO = 1000


def measure(server: Server, rounds: int) -> list[Figure]:
    """Microseconds: the middle and the 99th percentile of each round."""
    theirs: list[list[float]] = []
    ours: list[list[float]] = []
    for _ in range(rounds):
        theirs.append(_bare(server))
        ours.append(_ours(server))

    def line(name: str, share: float, against: float, target: Target | None) -> Figure:
        return Figure(
            group="latency",
            name=name,
            unit="µs",
            ours=[percentile(values, share) for values in ours],
            bare=[percentile(values, against) for values in theirs],
            target=target,
        )

    twice = Target(2, at_most=True)
    return [
        line(f"send() to the task's first line, {PER_SECOND} tasks/s, p50", 0.5, 0.5, twice),
        line("the same, p99 beside the bare p50", 0.99, 0.5, twice),
        line("the same, p99 beside the bare p99", 0.99, 0.99, None),
    ]


def _bare(server: Server) -> list[float]:
    server.flush()
    with process("benchmarks.reader", "--count", TASKS, url=server.url) as reader, server.connect() as connection:
        reader.await_ready()
        begin = time.monotonic()
        for number in range(TASKS):
            time.sleep(max(0.0, begin + number / PER_SECOND - time.monotonic()))
            bare.publish_singly(connection, [bare.task("note_latency", time.monotonic_ns())])
        return [value / _MICRO for value in reader.finish()["latencies"]]


def _ours(server: Server) -> list[float]:
    server.flush()
    with process("benchmarks.worker", "--concurrency", 32, "--until", TASKS + 1, url=server.url) as worker:
        worker.await_ready()
        trio.run(_send, server.url)
        # The first one only opened connections.
        return [value / _MICRO for value in worker.finish()["latencies"][1:]]


async def _send(url: str) -> None:
    async with Chicory(url) as app:
        send = app.task(name=note_latency.name)(note_latency.function).send
        await send(time.monotonic_ns())
        begin = trio.current_time()
        for number in range(TASKS):
            await trio.sleep_until(begin + (number + 1) / PER_SECOND)
            await send(time.monotonic_ns())
