"""Publishing: many at once, many callers at once, and one caller after another."""

import gc
import time
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from benchmarks import bare
from benchmarks.figures import Figure, Target, interleaved
from benchmarks.server import Server
from chicory import Chicory, TaskMessage, ValidationMode

MANY = 20_000
CALLERS = 100
PER_CALLER = 100
SINGLE = 3_000
_GROUP = "publish"

Run = Callable[[], float]


def measure(server: Server, rounds: int) -> list[Figure]:
    """Messages per second, each way of publishing beside raw XADD."""
    pipelined, many, unkept, concurrent, singly, one, send = interleaved(
        rounds,
        raw(server, bare.publish_pipelined, MANY),
        ours(server, _publish_many, MANY),
        ours(server, _publish_many_unkept, MANY),
        ours(server, concurrent_delay, CALLERS * PER_CALLER),
        raw(server, bare.publish_singly, SINGLE),
        ours(server, _publish_one_by_one, SINGLE),
        ours(server, _send_one_by_one, SINGLE),
    )

    def line(name: str, ours: list[float], against: list[float], limit: float) -> Figure:
        return Figure(group=_GROUP, name=name, unit="/s", ours=ours, bare=against, target=Target(limit))

    return [
        line("publish_many, results not kept", unkept, pipelined, 0.6),
        line("publish_many, results awaited: one SET more each", many, pipelined, 0.6),
        line(f"{CALLERS} concurrent delay() callers", concurrent, pipelined, 0.35),
        line("broker.publish, one after another", one, singly, 0.75),
        line("task.send, one after another", send, singly, 0.75),
    ]


def raw(server: Server, publish: Callable[[bare.Bare, list[dict[str, Any]]], None], count: int) -> Run:
    """Messages per second of the bare loop."""

    def run() -> float:
        server.flush()
        messages = [bare.task("noop", bare.TEXT) for _ in range(count)]
        gc.collect()
        with server.connect() as connection:
            publish(connection, messages[:1])
            started = time.perf_counter()
            publish(connection, messages)
            return count / (time.perf_counter() - started)

    return run


def ours(
    server: Server,
    publish: Callable[[Chicory, int], Awaitable[float]],
    count: int,
    mode: ValidationMode = ValidationMode.NONE,
) -> Run:
    """Messages per second of an app of that mode."""

    async def main() -> float:
        app = Chicory(server.url, validation_mode=mode)
        app.task(name="noop")(_noop)
        async with app:
            # Connected and with the script loaded, as a program is after its first message.
            await app.publish(TaskMessage(name="noop", args=[bare.TEXT]))
            gc.collect()
            return count / await publish(app, count)

    def run() -> float:
        server.flush()
        return trio.run(main)

    return run


async def _noop(text: str) -> None:
    """Never runs: nobody works here."""


async def _publish_many(app: Chicory, count: int) -> float:
    messages = [TaskMessage(name="noop", args=[bare.TEXT]) for _ in range(count)]
    started = time.perf_counter()
    await app.publish_many(messages)
    return time.perf_counter() - started


async def _publish_many_unkept(app: Chicory, count: int) -> float:
    messages = [TaskMessage(name="noop", args=[bare.TEXT], ignore_result=True) for _ in range(count)]
    started = time.perf_counter()
    await app.publish_many(messages)
    return time.perf_counter() - started


async def concurrent_delay(app: Chicory, count: int) -> float:
    """Seconds that many callers take, each with one message after another."""
    noop = app.tasks["noop"]

    async def caller() -> None:
        for _ in range(count // CALLERS):
            await noop.delay(bare.TEXT)

    started = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(CALLERS):
            nursery.start_soon(caller)
    return time.perf_counter() - started


async def _publish_one_by_one(app: Chicory, count: int) -> float:
    messages = [TaskMessage(name="noop", args=[bare.TEXT]) for _ in range(count)]
    started = time.perf_counter()
    for message in messages:
        await app.broker.publish(message)
    return time.perf_counter() - started


async def _send_one_by_one(app: Chicory, count: int) -> float:
    noop = app.tasks["noop"]
    started = time.perf_counter()
    for _ in range(count):
        await noop.send(bare.TEXT)
    return time.perf_counter() - started
