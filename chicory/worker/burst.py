"""Burst mode: a worker that stops when there is nothing to do."""

from typing import TYPE_CHECKING

import trio

from chicory.errors import BrokerError

if TYPE_CHECKING:
    from chicory.worker.worker import Worker

# Seconds between two looks at the queues; only a worker without work looks at all.
PAUSE = 0.1


async def stop_when_empty(worker: "Worker") -> None:
    """Stop *worker* when it holds nothing and nothing is ready; what is delayed waits for the next worker."""
    await worker.joined()
    quiet_at = -1
    while not worker.stopping:
        await worker.idle()
        # Twice in a row without a fetch in between: what was just taken from a queue is for a moment in neither place.
        if not await _empty(worker) or worker.held:
            quiet_at = -1
        elif quiet_at == worker.fetched:
            worker.stop()
        else:
            quiet_at = worker.fetched
        await trio.sleep(PAUSE)


async def _empty(worker: "Worker") -> bool:
    broker = worker.app.broker
    try:
        for queue in worker.config.consumed:
            if (await broker.get_queue_sizes(queue)).ready:
                return False
    except BrokerError:
        return False
    return True
