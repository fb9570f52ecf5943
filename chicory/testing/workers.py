"""A worker beside a test."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

from chicory.app import Chicory
from chicory.clock import unix_now
from chicory.config import evolve
from chicory.worker.plan import Catalog
from chicory.worker.worker import Worker


@asynccontextmanager
async def running_worker(
    app: Chicory, *, name: str | None = None, scheduler: bool = True, **settings: Any
) -> AsyncGenerator[Worker]:
    """A worker of *app* that has joined; leaving the block stops it and waits for its end.

    settings: of `WorkerConfig`, on top of the app's.  Leases and deadlines go by trio's clock, so virtual time works.
    """
    config = evolve(app.config.worker, **settings)
    catalog = partial(Catalog, now=unix_now)
    worker = Worker(app, config, scheduler=scheduler, name=name, clock=trio.current_time, catalog=catalog)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await worker.joined()
        yield worker
        worker.stop()
