"""huey with two threads a process, one process for each `huey_consumer`; fifty threads where tasks wait.

- Its processes and greenlets were slower, and it ran one task at a time with greenlets.
- Reads block instead of polling.  Results are kept, None included, or not at all.
- SIGTERM lets running tasks end, as it does with the others, instead of interrupting them.
- A task that was popped dies with its worker: at most once.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from huey import RedisHuey

from program import script
from work import PROCESSES, REDIS, RESULTS, WAITING, work

NAME = "huey"
REQUIREMENTS = ["huey==3.5.4", "redis==8.1.0", "hiredis==3.5.0"]
BROKERS = ["redis"]
AT_LEAST_ONCE = False
RATES = {"noop": 2_200, "sleep": 2_000, "bulk": 6_000, "single": 5_000}
CANNOT: dict[str, str] = {}

huey = RedisHuey("peers", url=REDIS or "redis://localhost", blocking=True, results=RESULTS, store_none=RESULTS)


@huey.task(name="work")
def do(kind: str, number: int) -> None:
    """The task."""
    work(kind, number)


class _Producer:
    async def one(self, kind: str, number: int) -> object:
        return do(kind, number)

    async def many(self, kind: str, numbers: Sequence[int]) -> None:
        for number in numbers:
            do(kind, number)

    async def later(self, kind: str, numbers: Sequence[int], due: float) -> None:
        # It takes a time without a zone for one of UTC.
        when = datetime.fromtimestamp(due, UTC)
        for number in numbers:
            do.schedule((kind, number), eta=when)


@asynccontextmanager
async def opened() -> AsyncGenerator[_Producer]:
    """huey keeps connections by itself."""
    yield _Producer()


def commands() -> list[list[str]]:
    """As many consumers as there are to be processes."""
    threads = 50 if WAITING else 2
    return [script("huey_consumer", "with_huey.huey", "-k", "thread", "-w", threads, "-q", "-g", "TERM")] * PROCESSES
