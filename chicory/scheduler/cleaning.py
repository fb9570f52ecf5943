"""Deletes results whose time to live is over, where the backend does not do so by itself."""

import logging
import random

import trio

from chicory.backends.base import Backend, Cleanable
from chicory.errors import BrokerError

log = logging.getLogger("chicory.scheduler")

# Seconds between looks.  A result that waits to be deleted is not shown to anybody, so nothing hangs on it.
EVERY = 60.0
# Few at a time, so that nobody who stores waits long for the rows of a batch; and a pause, to let them.
BATCH = 500
PAUSE = 0.1


async def clean(backend: Backend | None) -> None:
    """Work until cancelled; beside the scheduler, so that promoting never waits for a database."""
    if not isinstance(backend, Cleanable):
        return
    failing = False
    while True:
        deleted = 0
        try:
            deleted = await backend.clean(BATCH)
            failing = False
        except BrokerError as error:
            if not failing:
                log.warning("old results are not deleted, trying on: %s", error)
            failing = True
        # By chance, because all daemons may have been started at once.
        await trio.sleep(PAUSE if deleted >= BATCH else EVERY * (0.5 + random.random()))
