"""Old results are deleted a few at a time, whatever becomes of the database meanwhile."""

import logging

import pytest
import trio

from chicory.backends.memory import MemoryBackend
from chicory.errors import BrokerUnavailable
from chicory.scheduler.cleaning import BATCH, EVERY, clean


class Table:
    """A backend with *old* results, which fails *failures* times before it answers."""

    def __init__(self, old, failures=0):
        self.old = old
        self.failures = failures
        self.asked = []

    async def clean(self, limit):
        self.asked.append(trio.current_time())
        if self.failures:
            self.failures -= 1
            raise BrokerUnavailable("postgresql://h/results: connection refused")
        deleted = min(limit, self.old)
        self.old -= deleted
        return deleted


@pytest.fixture
async def cleaning(nursery):
    return lambda backend: nursery.start_soon(clean, backend)


async def test_what_is_left_over_is_deleted_in_small_batches_and_then_seldom_looked_for(autojump_clock, cleaning):
    table = Table(old=3 * BATCH + 1)

    cleaning(table)
    await trio.sleep(EVERY / 2)
    assert table.old == 0
    assert len(table.asked) == 4

    await trio.sleep(100 * EVERY)
    assert 100 / 1.5 <= len(table.asked) <= 4 + 101 / 0.5


async def test_an_outage_is_told_once_and_outlived(autojump_clock, cleaning, caplog):
    table = Table(old=1, failures=5)

    with caplog.at_level(logging.WARNING, "chicory.scheduler"):
        cleaning(table)
        await trio.sleep(10 * EVERY)

    assert table.old == 0
    assert [record.getMessage() for record in caplog.records] == [
        "old results are not deleted, trying on: postgresql://h/results: connection refused"
    ]


@pytest.mark.parametrize("backend", [None, MemoryBackend()])
async def test_a_backend_that_forgets_by_itself_is_left_alone(backend):
    await clean(backend)
