"""SAQ with orjson, fifty jobs at once; a thousand where they wait.

- max_concurrent_ops is 100 instead of 20.
- Jobs have five tries instead of one, with which a job whose worker died would be given up; it is looked for every 2 s
  instead of every minute.  A job's timeout is 10 s, its default.
- Results are kept for a day, or not at all.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
from redis.asyncio import Redis
from saq.queue.redis import RedisQueue

from program import script
from work import PROCESSES, RECOVERY, REDIS, RESULTS, WAITING, work_async

NAME = "SAQ"
REQUIREMENTS = [
    "saq==0.26.4",
    "redis==7.4.1",
    "hiredis==3.5.0",
    "orjson==3.13.0",
    # Imported by it, and not required.
    "typing_extensions==4.16.0",
]
BROKERS = ["redis"]
AT_LEAST_ONCE = True
RATES = {"noop": 1_500, "sleep": 1_800, "bulk": 8_000, "single": 3_500}
CANNOT: dict[str, str] = {}

_AT_ONCE = 100
queue = RedisQueue(
    Redis.from_url(REDIS or "redis://localhost"),
    dump=lambda job: orjson.dumps(job).decode(),
    load=orjson.loads,
    max_concurrent_ops=100,
)
_OPTIONS = {"timeout": RECOVERY, "retries": 5, "ttl": 86400 if RESULTS else -1}


async def do(_: Any, *, kind: str, number: int) -> None:
    """The job."""
    await work_async(kind, number, asyncio.sleep)


settings = {
    "queue": queue,
    "functions": [("work", do)],
    "concurrency": 1000 if WAITING else 50,
    "timers": {"sweep": 2},
}


class _Producer:
    async def one(self, kind: str, number: int) -> object:
        return await queue.enqueue("work", kind=kind, number=number, **_OPTIONS)

    async def many(self, kind: str, numbers: Sequence[int]) -> None:
        await self._all(kind, numbers)

    async def later(self, kind: str, numbers: Sequence[int], due: float) -> None:
        await self._all(kind, numbers, scheduled=int(due))

    async def _all(self, kind: str, numbers: Sequence[int], **more: int) -> None:
        for at in range(0, len(numbers), _AT_ONCE):
            batch = numbers[at : at + _AT_ONCE]
            sending = [queue.enqueue("work", kind=kind, number=number, **_OPTIONS, **more) for number in batch]
            await asyncio.gather(*sending)


@asynccontextmanager
async def opened() -> AsyncGenerator[_Producer]:
    """A queue that is connected."""
    await queue.connect()
    try:
        yield _Producer()
    finally:
        await queue.disconnect()


def commands() -> list[list[str]]:
    """As many commands as processes: what one starts with --workers does not hear of a SIGTERM."""
    return [script("saq", "with_saq.settings")] * PROCESSES
