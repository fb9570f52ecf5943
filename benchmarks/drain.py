"""One worker process empties a full queue of tasks that do nothing."""

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
        lambda: _bare(server, results=True),
        lambda: _ours(server, results=True, spent=spent),
        lambda: _bare(server, results=False),
        lambda: _ours(server, results=False, spent=[]),
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


def _bare(server: Server, *, results: bool) -> float:
    server.flush()
    with server.connect() as connection:
        bare.make_group(connection)
        messages = [bare.task("noop", bare.TEXT) for _ in range(TASKS)]
        bare.publish_pipelined(connection, messages)
        return TASKS / bare.drain(connection, TASKS, results=results)


def _ours(server: Server, *, results: bool, spent: list[float]) -> float:
    server.flush()
    trio.run(_fill, server.url, results)
    arguments = ("--concurrency", CONCURRENCY, "--prefetch", PREFETCH, "--until", TASKS)
    with process("benchmarks.worker", *arguments, url=server.url) as worker:
        said = worker.finish()
    assert said["report"]["done"] == TASKS, said["report"]
    spent.append(said["cpu"] / TASKS * 1e6)
    return TASKS / said["seconds"]


async def _fill(url: str, results: bool) -> None:
    async with Chicory(url) as app:
        await app.publish_many([_message(results) for _ in range(TASKS)])


def _message(results: bool) -> TaskMessage:
    return TaskMessage(name="noop", args=[bare.TEXT], ignore_result=not results)
