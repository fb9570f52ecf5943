"""streaQ on trio, otherwise as on asyncio."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from program import script
from with_streaq import OPTIONS, Producer, do, made
from work import PROCESSES

NAME = "streaQ on trio"
REQUIREMENTS = ["streaq==7.2.0", "coredis==6.9.0", "hiredis==3.5.0", "uvloop==0.23.0", "trio==0.35.0"]
BROKERS = ["redis"]
AT_LEAST_ONCE = True
RATES = {"noop": 1_000, "sleep": 1_200, "bulk": 10_000, "single": 2_800}
CANNOT: dict[str, str] = {}

# The event loop of `opened`.
run = trio.run

worker = made("trio")
task = worker.task(**OPTIONS)(do)


@asynccontextmanager
async def opened() -> AsyncGenerator[Producer]:
    """A worker that is connected, and does not work."""
    async with worker:
        yield Producer(worker)


def commands() -> list[list[str]]:
    """As many commands as processes."""
    return [script("streaq", "run", "with_streaq_trio:worker")] * PROCESSES
