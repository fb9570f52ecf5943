"""Celery, prefork: a worker with as many pool processes as asked for.

- acks_late and reject_on_worker_lost: the others run a task at most once.
- A prefetch of 128 a process instead of 4, without which every task waits for a round trip.
- Gossip, mingle, heartbeats and events are off, since nobody listens; logging is at WARNING.
- With tasks that wait it has threads (50 a process, the best of what was tried; gevent was slower), as many workers as
  processes, and the prefetch of 4.
- The visibility timeout on Redis is 10 s instead of an hour, so that it can show how it recovers at all.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from celery import Celery

from program import script
from work import BROKER, PROCESSES, RECOVERY, REDIS, RESULTS, WAITING, work

NAME = "Celery"
REQUIREMENTS = ["celery==5.7.0", "redis==8.1.0", "hiredis==3.5.0", "packaging==26.3"]
BROKERS = ["redis", "rabbitmq"]
AT_LEAST_ONCE = True
RATES = {"noop": 600, "sleep": 400, "bulk": 1_500, "single": 1_400}
CANNOT: dict[str, str] = {}

_PREFETCH = 128
_THREADS = 50

app = Celery("with_celery", broker=BROKER, backend=REDIS if RESULTS else None)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=not RESULTS,
    task_track_started=False,
    task_serializer="json",
    worker_prefetch_multiplier=4 if WAITING else _PREFETCH,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    broker_pool_limit=1,
    broker_transport_options={} if BROKER.startswith("amqp") else {"visibility_timeout": RECOVERY},
)


@app.task(name="work")
def do(kind: str, number: int) -> None:
    """The task."""
    work(kind, number)


class _Producer:
    async def one(self, kind: str, number: int) -> object:
        return do.apply_async((kind, number))

    async def many(self, kind: str, numbers: Sequence[int]) -> None:
        with app.producer_pool.acquire(block=True) as producer:
            for number in numbers:
                do.apply_async((kind, number), producer=producer)

    async def later(self, kind: str, numbers: Sequence[int], due: float) -> None:
        eta = datetime.fromtimestamp(due, UTC)
        with app.producer_pool.acquire(block=True) as producer:
            for number in numbers:
                do.apply_async((kind, number), eta=eta, producer=producer)


@asynccontextmanager
async def opened() -> AsyncGenerator[_Producer]:
    """Celery keeps connections by itself."""
    yield _Producer()


def commands() -> list[list[str]]:
    """One worker; several where each is a process full of threads."""
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING")
    if not WAITING:
        return [script("celery", "-A", "with_celery", "worker", "-P", "prefork", "-c", PROCESSES, *quiet)]
    return [
        script("celery", "-A", "with_celery", "worker", "-P", "threads", "-c", _THREADS, "-n", f"w{n}@%h", *quiet)
        for n in range(PROCESSES)
    ]
