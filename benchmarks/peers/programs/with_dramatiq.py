"""Dramatiq with 8 threads a process, its default; 64 where tasks wait.  gevent stalled after some hundred tasks.

- Its default middleware, and results where they are kept, for a day.
- heartbeat_timeout is 10 s instead of 60, after which messages of a dead worker come back.
"""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from program import script
from work import BROKER, PROCESSES, RECOVERY, REDIS, RESULTS, WAITING, work

NAME = "Dramatiq"
REQUIREMENTS = ["dramatiq==2.2.1", "redis==8.1.0", "hiredis==3.5.0", "pika==1.4.4"]
BROKERS = ["redis", "rabbitmq"]
AT_LEAST_ONCE = True
RATES = {"noop": 1_500, "sleep": 2_000, "bulk": 4_000, "single": 4_000}
CANNOT: dict[str, str] = {}

if BROKER.startswith("amqp"):
    broker = RabbitmqBroker(url=BROKER, confirm_delivery=True)
else:
    broker = RedisBroker(url=BROKER, heartbeat_timeout=RECOVERY * 1000)
if RESULTS:
    broker.add_middleware(Results(backend=RedisBackend(url=REDIS), store_results=True, result_ttl=86_400_000))
dramatiq.set_broker(broker)


@dramatiq.actor(actor_name="work")
def do(kind: str, number: int) -> None:
    """The actor."""
    work(kind, number)


class _Producer:
    async def one(self, kind: str, number: int) -> object:
        return do.send(kind, number)

    async def many(self, kind: str, numbers: Sequence[int]) -> None:
        for number in numbers:
            do.send(kind, number)

    async def later(self, kind: str, numbers: Sequence[int], due: float) -> None:
        for number in numbers:
            # Whole milliseconds; rounded up, so that none is early.
            do.send_with_options(args=(kind, number), delay=int((due - time.time()) * 1000) + 1)


@asynccontextmanager
async def opened() -> AsyncGenerator[_Producer]:
    """Dramatiq keeps connections by itself."""
    yield _Producer()


def commands() -> list[list[str]]:
    """One command for all processes."""
    return [script("dramatiq", "with_dramatiq", "-p", PROCESSES, "-t", 64 if WAITING else 8)]
