"""Virtual time for a whole module: `pytestmark = in_virtual_time`.  Waiting costs nothing, a deadlock is met at once."""

import pytest
import trio
from trio.testing import MockClock


def _run(test, *, clock=None, instruments=()):
    return trio.run(test, clock=clock or MockClock(autojump_threshold=0), instruments=instruments)


in_virtual_time = pytest.mark.trio(run=_run)


async def close_books(app, queue="default"):
    """Every message is in exactly one place: see `Broker.counters`."""
    sizes = await app.broker.get_queue_sizes(queue)
    books = await app.broker.counters(queue)
    ended = sum(books.get(road, 0) for road in ("done", "failed", "dead", "purged", "lost"))
    assert books.get("published", 0) + books.get("replayed", 0) == ended + sizes.ready + sizes.delayed + sizes.delivered
