"""Chicory under chicoryd, with one worker process a core, each forked from the template.

Tasks that wait run a thousand at once; others two hundred, with as many prefetched, as `make bench` has them.  The
scheduler is a process of its own, and counts where memory and idle time are measured.  The lease is the default, 30 s.
"""

import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import trio

from chicory import BackendType, BrokerType, Chicory, TaskMessage
from chicory.config import BrokerConfig, ChicoryConfig, RabbitMQBrokerConfig, RedisBrokerConfig
from work import BROKER, DIRECTORY, PROCESSES, REDIS, RESULTS, WAITING, work_async

NAME = "Chicory"
REQUIREMENTS = ["chicoryd"]
BROKERS = ["redis", "rabbitmq"]
AT_LEAST_ONCE = True
# Rough rates on a small machine, to choose how many tasks fill some seconds: no-op tasks of one process, tasks that
# sleep, and messages sent in bulk and one by one.
RATES = {"noop": 60_000, "sleep": 8_000, "bulk": 100_000, "single": 6_000}
CANNOT: dict[str, str] = {}

# The event loop of `opened`.
run = trio.run

_RABBITMQ = BROKER.startswith("amqp")
_BROKER = (
    BrokerConfig(rabbitmq=RabbitMQBrokerConfig(url=BROKER))
    if _RABBITMQ
    else BrokerConfig(redis=RedisBrokerConfig(url=REDIS or None))
)
app = Chicory(
    BrokerType.RABBITMQ if _RABBITMQ else BrokerType.REDIS,
    BackendType.REDIS if RESULTS else BackendType.NONE,
    ChicoryConfig(broker=_BROKER),
)

# The daemon imports no app, and would start a broker of its own.
_SETTINGS = """\
app = "with_chicory:app"

[broker]
type = "{kind}"

[broker.{kind}]
url = "{url}"

[worker]
concurrency = {concurrency}
prefetch = {prefetch}
log_level = "WARNING"

[supervisor]
workers = {workers}
state_dir = "{state}"
"""


@app.task(name="work", ignore_result=not RESULTS)
async def do(kind: str, number: int) -> None:
    """The task."""
    await work_async(kind, number, trio.sleep)


class _Producer:
    async def one(self, kind: str, number: int) -> object:
        return await do.send(kind, number)

    async def many(self, kind: str, numbers: Sequence[int]) -> object:
        return await app.publish_many([do.message(kind, number) for number in numbers])

    async def later(self, kind: str, numbers: Sequence[int], due: float) -> object:
        eta = datetime.fromtimestamp(due, UTC)
        return await app.publish_many([TaskMessage(name="work", args=[kind, number], eta=eta) for number in numbers])


@asynccontextmanager
async def opened() -> AsyncGenerator[_Producer]:
    """An app that is connected."""
    async with app:
        yield _Producer()


def commands() -> list[list[str]]:
    """The daemon."""
    directory = Path(DIRECTORY)
    concurrency, prefetch = (1000, 0) if WAITING else (200, 200)
    settings = directory / "chicory.toml"
    text = _SETTINGS.format(
        kind="rabbitmq" if _RABBITMQ else "redis",
        url=BROKER if _RABBITMQ else REDIS,
        concurrency=concurrency,
        prefetch=prefetch,
        workers=PROCESSES,
        state=directory / "state",
    )
    settings.write_text(text)
    return [[sys.executable, "-m", "chicoryd", "start", "-c", str(settings)]]
