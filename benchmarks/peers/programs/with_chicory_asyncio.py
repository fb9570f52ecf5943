"""chicory, the asyncio queue on the package index, which is another project.

- At least once, without validation; a hundred tasks at once, a thousand where they wait.
- claim_min_idle_ms is 10 s instead of 30, and streams are not trimmed: by default tasks beyond 100 000 are dropped.
- block_ms is 2 s instead of 5, because with this redis-py it dies of a read that waits longer than that.
- There is no call for tasks that are due later, but its broker takes messages that say so.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import uuid4

from chicory import BackendType, BrokerType, Chicory, DeliveryMode, ValidationMode
from chicory.config import ChicoryConfig
from chicory.types import TaskMessage
from program import script
from work import PROCESSES, RECOVERY, REDIS, RESULTS, WAITING, work_async

NAME = "chicory 0.1 (asyncio)"
REQUIREMENTS = ["chicory[cli]==0.1.0", "redis==8.1.0", "hiredis==3.5.0"]
BROKERS = ["redis"]
AT_LEAST_ONCE = True
RATES = {"noop": 1_500, "sleep": 1_500, "bulk": 8_000, "single": 4_000}
CANNOT: dict[str, str] = {}

_AT_ONCE = 100
_config = ChicoryConfig()
_redis = _config.broker.redis
_redis.url = REDIS or None
_redis.block_ms = 2000
_redis.claim_min_idle_ms = RECOVERY * 1000
_redis.max_stream_length = None
_config.backend.redis.url = REDIS or None
app = Chicory(
    BrokerType.REDIS,
    BackendType.REDIS if RESULTS else None,
    _config,
    validation_mode=ValidationMode.NONE,
    delivery_mode=DeliveryMode.AT_LEAST_ONCE,
)


@app.task(name="work")
async def do(kind: str, number: int) -> None:
    """The task."""
    await work_async(kind, number, asyncio.sleep)


class _Producer:
    async def one(self, kind: str, number: int) -> object:
        return await do.delay(kind, number)

    async def many(self, kind: str, numbers: Sequence[int]) -> None:
        for at in range(0, len(numbers), _AT_ONCE):
            await asyncio.gather(*[do.delay(kind, number) for number in numbers[at : at + _AT_ONCE]])

    async def later(self, kind: str, numbers: Sequence[int], due: float) -> None:
        when = datetime.fromtimestamp(due, UTC)
        for at in range(0, len(numbers), _AT_ONCE):
            messages = [
                TaskMessage(id=uuid4().hex, name="work", args=[kind, number], kwargs={}, eta=when)
                for number in numbers[at : at + _AT_ONCE]
            ]
            await asyncio.gather(*[app.broker.publish(message) for message in messages])


@asynccontextmanager
async def opened() -> AsyncGenerator[_Producer]:
    """An app that is connected."""
    await app.connect()
    try:
        yield _Producer()
    finally:
        await app.disconnect()


def commands() -> list[list[str]]:
    """One command for all processes."""
    at_once = 1000 if WAITING else 100
    words = ("worker", "with_chicory_asyncio:app", "-w", PROCESSES, "-c", at_once, "--log-level", "WARNING")
    return [script("chicory", *words)]
