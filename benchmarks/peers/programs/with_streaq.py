"""streaQ on asyncio with uvloop, 32 tasks at once; a thousand where they wait.

- Tasks are silent, because it logs a line for each otherwise.
- idle_timeout is 10 s instead of 60, after which tasks of a dead worker come back.
- Results are kept for a day, or not at all.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import anyio
import uvloop
from streaq import Worker

from program import script
from work import PROCESSES, RECOVERY, REDIS, RESULTS, WAITING, work_async

NAME = "streaQ on asyncio"
REQUIREMENTS = ["streaq==7.2.0", "coredis==6.9.0", "hiredis==3.5.0", "uvloop==0.23.0"]
BROKERS = ["redis"]
AT_LEAST_ONCE = True
RATES = {"noop": 1_000, "sleep": 1_200, "bulk": 10_000, "single": 2_800}
CANNOT: dict[str, str] = {}

_AT_ONCE = 100
_BATCH = 1000


def made(backend: str) -> Worker[None]:
    """A worker on that event loop."""
    return Worker(
        REDIS or "redis://localhost",
        concurrency=1000 if WAITING else 32,
        idle_timeout=RECOVERY,
        anyio_backend="trio" if backend == "trio" else "asyncio",
        anyio_kwargs={} if backend == "trio" else {"loop_factory": uvloop.new_event_loop},
    )


async def do(kind: str, number: int) -> None:
    """The task."""
    await work_async(kind, number, anyio.sleep)


OPTIONS = {"name": "work", "silent": True, "ttl": timedelta(days=1) if RESULTS else 0}
worker = made("asyncio")
task = worker.task(**OPTIONS)(do)


class Producer:
    """Sends through that worker."""

    def __init__(self, worker: Worker[None]) -> None:
        self._worker = worker
        self._task = worker.registry["work"]

    async def one(self, kind: str, number: int) -> object:
        """Send one."""
        return await self._task.enqueue(kind, number)

    async def many(self, kind: str, numbers: Sequence[int]) -> None:
        """Send all, in pipelines."""
        for at in range(0, len(numbers), _BATCH):
            batch = numbers[at : at + _BATCH]
            await self._worker.enqueue_many([self._task.enqueue(kind, number) for number in batch])

    async def later(self, kind: str, numbers: Sequence[int], due: float) -> None:
        """Send all at a time, many at once."""
        when = datetime.fromtimestamp(due, UTC)

        async def send(number: int) -> None:
            await self._task.enqueue(kind, number).start(schedule=when)

        for at in range(0, len(numbers), _AT_ONCE):
            async with anyio.create_task_group() as group:
                for number in numbers[at : at + _AT_ONCE]:
                    group.start_soon(send, number)


@asynccontextmanager
async def opened() -> AsyncGenerator[Producer]:
    """A worker that is connected, and does not work."""
    async with worker:
        yield Producer(worker)


def commands() -> list[list[str]]:
    """As many commands as processes: what one starts with --workers does not hear of a SIGTERM."""
    return [script("streaq", "run", "with_streaq:worker")] * PROCESSES
