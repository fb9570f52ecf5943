"""For your own tests: an app on the memory broker, and a worker beside the test.

    from chicory.testing import memory_app, running_worker

    async def test_double(autojump_clock):
        app = memory_app()

        @app.task
        async def double(x: int) -> int:
            return 2 * x

        async with running_worker(app):
            result = await double.delay(21)

            assert await result.get() == 42

With pytest-trio's `autojump_clock`, delays, retries and timeouts take no time at all.  A task needs no worker to be
tested by itself: calling it calls the function.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import trio

from chicory.app import Chicory
from chicory.config import evolve
from chicory.retry import RetryPolicy
from chicory.types import BackendType, BrokerType, DeliveryMode, ValidationMode
from chicory.worker.worker import Worker

__all__ = ["memory_app", "running_worker"]


def memory_app(
    *,
    delivery_mode: DeliveryMode = DeliveryMode.AT_LEAST_ONCE,
    retry_policy: RetryPolicy | None = None,
    validation_mode: ValidationMode = ValidationMode.NONE,
) -> Chicory:
    """An app whose messages and results live in this process."""
    return Chicory(
        broker=BrokerType.MEMORY,
        backend=BackendType.MEMORY,
        delivery_mode=delivery_mode,
        retry_policy=retry_policy,
        validation_mode=validation_mode,
    )


@asynccontextmanager
async def running_worker(
    app: Chicory, *, name: str | None = None, scheduler: bool = True, **settings: Any
) -> AsyncGenerator[Worker]:
    """A worker of *app* that has joined; leaving the block stops it and waits for its end.

    settings: of `WorkerConfig`, on top of the app's.  Leases are measured by trio's clock, so virtual time works.
    """
    config = evolve(app.config.worker, **settings)
    worker = Worker(app, config, scheduler=scheduler, name=name, clock=trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await worker.joined()
        yield worker
        worker.stop()
