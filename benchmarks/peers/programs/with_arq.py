"""arq on uvloop, one process for each `arq` command.

- A hundred jobs at once; five hundred where they wait.  poll_delay is 0.05 s instead of 0.5, which is what makes a job
  wait on an idle worker.
- job_timeout is 10 s instead of 300: the in-progress key of a dead worker lasts ten seconds longer than that.
- Results are kept for a day, or not at all; health checks once an hour, logging at WARNING.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import uvloop
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.worker import func

from program import script
from work import PROCESSES, RECOVERY, REDIS, RESULTS, WAITING, work_async

NAME = "arq"
REQUIREMENTS = ["arq==0.28.0", "hiredis==3.5.0", "uvloop==0.23.0"]
BROKERS = ["redis"]
AT_LEAST_ONCE = True
RATES = {"noop": 1_500, "sleep": 1_500, "bulk": 5_000, "single": 2_000}
CANNOT: dict[str, str] = {}

_AT_ONCE = 100
_SETTINGS = RedisSettings.from_dsn(REDIS or "redis://localhost")

# The command line makes a loop by this policy.
asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


async def do(_: dict[str, Any], kind: str, number: int) -> None:
    """The job."""
    await work_async(kind, number, asyncio.sleep)


class WorkerSettings:
    """What the command line reads."""

    functions = (func(do, name="work", keep_result=86400 if RESULTS else 0, timeout=RECOVERY, max_tries=5),)
    redis_settings = _SETTINGS
    max_jobs = 500 if WAITING else 100
    poll_delay = 0.05
    job_timeout = RECOVERY
    health_check_interval = 3600
    job_completion_wait = 30


# Its own logging is at INFO, a line or two for each job.
QUIET = {"version": 1, "disable_existing_loggers": False, "loggers": {"arq": {"level": logging.WARNING}}}


class _Producer:
    def __init__(self, redis: ArqRedis) -> None:
        self._redis = redis

    async def one(self, kind: str, number: int) -> object:
        return await self._redis.enqueue_job("work", kind, number)

    async def many(self, kind: str, numbers: Sequence[int]) -> None:
        await self._all(kind, numbers)

    async def later(self, kind: str, numbers: Sequence[int], due: float) -> None:
        await self._all(kind, numbers, _defer_until=datetime.fromtimestamp(due, UTC))

    async def _all(self, kind: str, numbers: Sequence[int], **options: Any) -> None:
        for at in range(0, len(numbers), _AT_ONCE):
            batch = numbers[at : at + _AT_ONCE]
            await asyncio.gather(*[self._redis.enqueue_job("work", kind, number, **options) for number in batch])


@asynccontextmanager
async def opened() -> AsyncGenerator[_Producer]:
    """A pool of connections."""
    redis = await create_pool(_SETTINGS)
    try:
        yield _Producer(redis)
    finally:
        await redis.aclose()


def commands() -> list[list[str]]:
    """As many `arq` as there are to be processes."""
    return [script("arq", "with_arq.WorkerSettings", "--custom-log-dict", "with_arq.QUIET")] * PROCESSES
