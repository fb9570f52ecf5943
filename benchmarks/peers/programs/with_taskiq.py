"""taskiq on uvloop, with Redis Streams.

- Up to 500 tasks at once and as many prefetched, 500 messages a read; 1000 at once where tasks wait.  Messages are
  orjson, and arguments are not parsed with pydantic.
- Acknowledged when the result is saved, which is its default.  Results are kept for a day, or not at all.
- idle_timeout is 10 s instead of ten minutes, after which messages of a dead worker come back.
- Tasks that are due later need its scheduler process, which runs where there are such, and looks for new ones every
  second instead of every minute.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from taskiq import TaskiqScheduler
from taskiq.serializers import ORJSONSerializer
from taskiq_aio_pika import AioPikaBroker
from taskiq_redis import ListRedisScheduleSource, RedisAsyncResultBackend, RedisStreamBroker

from program import script
from work import BROKER, DELAYS, PROCESSES, RECOVERY, REDIS, RESULTS, WAITING, work_async

NAME = "taskiq"
REQUIREMENTS = [
    "taskiq==0.13.0",
    "taskiq-redis==1.2.4",
    "taskiq-aio-pika==0.6.1",
    "hiredis==3.5.0",
    "orjson==3.13.0",
    "uvloop==0.23.0",
]
BROKERS = ["redis", "rabbitmq"]
AT_LEAST_ONCE = True
RATES = {"noop": 1_800, "sleep": 2_000, "bulk": 4_000, "single": 2_800}
CANNOT: dict[str, str] = {}

_AT_ONCE = 100
_REDIS = REDIS or "redis://localhost"
_READ = 500

if BROKER.startswith("amqp"):
    broker = AioPikaBroker(BROKER, qos=_READ)
else:
    broker = RedisStreamBroker(_REDIS, xread_count=_READ, idle_timeout=RECOVERY * 1000)
broker = broker.with_serializer(ORJSONSerializer())
if RESULTS:
    broker = broker.with_result_backend(RedisAsyncResultBackend(_REDIS, result_ex_time=86400))
source = ListRedisScheduleSource(_REDIS)
scheduler = TaskiqScheduler(broker, [source])


@broker.task(task_name="work")
async def do(kind: str, number: int) -> None:
    """The task."""
    await work_async(kind, number, asyncio.sleep)


class _Producer:
    async def one(self, kind: str, number: int) -> object:
        return await do.kiq(kind, number)

    async def many(self, kind: str, numbers: Sequence[int]) -> None:
        for at in range(0, len(numbers), _AT_ONCE):
            await asyncio.gather(*[do.kiq(kind, number) for number in numbers[at : at + _AT_ONCE]])

    async def later(self, kind: str, numbers: Sequence[int], due: float) -> None:
        when = datetime.fromtimestamp(due, UTC)
        for at in range(0, len(numbers), _AT_ONCE):
            batch = numbers[at : at + _AT_ONCE]
            await asyncio.gather(*[do.schedule_by_time(source, when, kind, number) for number in batch])


@asynccontextmanager
async def opened() -> AsyncGenerator[_Producer]:
    """A broker that is started."""
    await broker.startup()
    await source.startup()
    try:
        yield _Producer()
    finally:
        await source.shutdown()
        await broker.shutdown()


def commands() -> list[list[str]]:
    """One command for all processes, and the scheduler where it is needed."""
    at_once = 1000 if WAITING else 500
    limits = ("--max-async-tasks", at_once, "--max-prefetch", 500, "--no-parse", "--log-level", "WARNING")
    workers = script("taskiq", "worker", "with_taskiq:broker", "--workers", PROCESSES, *limits)
    return (
        [workers, script("taskiq", "scheduler", "with_taskiq:scheduler", "--update-interval", 1)]
        if DELAYS
        else [workers]
    )
