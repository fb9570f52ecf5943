"""One worker process empties a full queue of tasks that do nothing."""

from collections.abc import Callable

import trio

from benchmarks import bare
from benchmarks.figures import Figure, Target, interleaved
from benchmarks.process import process
from benchmarks.server import Server
from chicory import Chicory, TaskMessage

TASKS = 20_000
CONCURRENCY = 200
PREFETCH = 200


def measure(server: Server, rounds: int) -> list[Figure]:
    """Tasks per second from the first fetch to the last settled, and the CPU time they took."""
    spent: list[float] = []
    kept_bare, kept, unkept_bare, unkept = interleaved(
        rounds,
        lambda: bare_drain(server, results=True),
        lambda: our_drain(server, lambda: _message(results=True), spent),
        lambda: bare_drain(server, results=False),
        lambda: our_drain(server, lambda: _message(results=False), []),
    )
    slots = f"one worker, concurrency {CONCURRENCY} + prefetch {PREFETCH}"
    return [
        Figure(
            group="drain",
            name=f"{TASKS} tasks drained, results stored; {slots}",
            unit="/s",
            ours=kept,
            bare=kept_bare,
            target=Target(0.45),
        ),
        Figure(
            group="drain",
            name="the same without results",
            unit="/s",
            ours=unkept,
            bare=unkept_bare,
            target=Target(0.5),
        ),
        Figure(
            group="drain",
            name="CPU of the worker per task, results stored",
            unit="µs",
            ours=spent,
            target=Target(25, at_most=True, absolute=True),
            digits=1,
        ),
    ]


def bare_drain(server: Server, *, results: bool) -> float:
    """Tasks per second of the bare loop."""
    server.flush()
    with server.connect() as connection:
        bare.make_group(connection)
        messages = [bare.task("noop", bare.TEXT) for _ in range(TASKS)]
        bare.publish_pipelined(connection, messages)
        return TASKS / bare.drain(connection, TASKS, results=results)


def our_drain(server: Server, message: Callable[[], TaskMessage], spent: list[float]) -> float:
    """Tasks per second of one worker; the microseconds of CPU that each took are added to *spent*."""
    server.flush()
    trio.run(_fill, server.url, message)
    arguments = ("--concurrency", CONCURRENCY, "--prefetch", PREFETCH, "--until", TASKS)
    with process("benchmarks.worker", *arguments, url=server.url) as worker:
        said = worker.finish()
    assert said["report"]["done"] == TASKS, said["report"]
    spent.append(said["cpu"] / TASKS * 1e6)
    return TASKS / said["seconds"]


async def _fill(url: str, message: Callable[[], TaskMessage]) -> None:
    async with Chicory(url) as app:
        await app.publish_many([message() for _ in range(TASKS)])


def _message(*, results: bool) -> TaskMessage:
    return TaskMessage(name="noop", args=[bare.TEXT], ignore_result=not results)
