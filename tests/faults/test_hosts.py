"""Two daemons share the queues, as on two hosts, and one host is lost."""

import pytest

from tests.faults.load import close_books, long, quick, send
from tests.faults.tree import Tree, until

LEASE = 3.0


@pytest.fixture
async def hosts(server):
    lost = Tree(server.url)
    other = Tree(server.url, beside=lost)
    await lost.start().ready()
    await other.start().ready()
    yield lost, other
    other.remove()
    lost.remove()


async def test_what_a_lost_host_ran_runs_on_another_within_a_lease_and_five_seconds(hosts, measured):
    lost, other = hosts
    async with other.client() as app:
        # More than one host has places for.
        ledger, pids, slow = other.ledger, lost.pids(), long(40, 1.5)
        await send(other, app, quick(200) + slow + quick(200, seed=2))
        slow = {each.id for each in slow}
        await until(lambda: sum(run.pid in pids and run.id in slow for run in ledger.running()) >= 5, "both work")

        lost.kill_all()
        killed = min(fault.at for fault in ledger.faults)
        await close_books(other, app)

        waits = [wait for pid in pids for wait in ledger.reruns_after(pid, killed).values()]
        assert len(waits) >= 5
        assert measured("from the loss of a host until its work runs again", waits) <= LEASE + 5.0
        assert await other.stop() == 0
