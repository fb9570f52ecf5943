"""RQ with SimpleWorker, which does not fork for each job; the default does, and does a tenth.

- A worker runs one job at a time, so where tasks wait there are four times as many processes.
- Logging is off but for warnings.  Results are kept for a day, or not at all.
- Tasks that are due later need a worker with a scheduler, which one is where there are such.
- A job whose worker was killed is not run again but put with the failed ones: at most once.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from redis import Redis
from rq import Queue

from program import script
from work import DELAYS, PROCESSES, REDIS, RESULTS, WAITING, work

NAME = "RQ"
REQUIREMENTS = ["rq==3.0.0", "redis==8.1.0", "hiredis==3.5.0"]
BROKERS = ["redis"]
AT_LEAST_ONCE = False
RATES = {"noop": 250, "sleep": 350, "bulk": 10_000, "single": 2_000}
CANNOT: dict[str, str] = {}

_BATCH = 1000
_OPTIONS = {"result_ttl": 86400 if RESULTS else 0}


class _Producer:
    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    async def one(self, kind: str, number: int) -> object:
        return self._queue.enqueue(work, kind, number, **_OPTIONS)

    async def many(self, kind: str, numbers: Sequence[int]) -> None:
        for at in range(0, len(numbers), _BATCH):
            batch = numbers[at : at + _BATCH]
            self._queue.enqueue_many([Queue.prepare_data(work, (kind, number), **_OPTIONS) for number in batch])

    async def later(self, kind: str, numbers: Sequence[int], due: float) -> None:
        when = datetime.fromtimestamp(due, UTC)
        for number in numbers:
            self._queue.enqueue_at(when, work, kind, number, **_OPTIONS)


@asynccontextmanager
async def opened() -> AsyncGenerator[_Producer]:
    """A queue on one connection."""
    with Redis.from_url(REDIS) as redis:
        yield _Producer(Queue("default", connection=redis))


def commands() -> list[list[str]]:
    """As many workers as there are to be processes."""
    worker = script("rq", "worker", "--url", REDIS, "--quiet", "--worker-class", "rq.worker.SimpleWorker")
    workers = [worker] * (PROCESSES * 4 if WAITING else PROCESSES)
    return [[*worker, "--with-scheduler"], *workers[1:]] if DELAYS else workers
