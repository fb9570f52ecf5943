"""Workers that ran well cannot boot any more."""

import os
from pathlib import Path

import pytest
import trio

from tests.faults.load import close_books, long, probe, quick, send
from tests.faults.tree import until


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("failed", [2, pytest.param(6, marks=pytest.mark.long)])
async def test_a_daemon_whose_workers_crash_at_boot_waits_and_heals_by_itself(tree, app, failed):
    await send(tree, app, long(6, 0.2) + quick(50))
    await until(lambda: tree.ledger.running(), "something runs")
    tree.broken.touch()
    spent = cpu_seconds(tree.process.pid)
    for pid in tree.pids():
        tree.kill(pid)

    def failures():
        return [slot["failures"] for slot in tree.workers()]

    began = trio.current_time()
    await until(lambda: min(failures()) >= failed, "each has died so often, once by our hand and then at boot")
    # 0, 1, 2, 4 ... seconds between the tries, give or take a fifth: nothing spins, and nobody gives up.
    assert trio.current_time() - began >= 0.8 * (2 ** (failed - 2) - 1)
    assert max(failures()) <= failed + 1
    assert cpu_seconds(tree.process.pid) - spent <= 0.05 * (trio.current_time() - began) + 0.1
    assert tree.process.poll() is None

    tree.broken.unlink()
    await probe(tree, app, 60.0)

    await close_books(tree, app)
    await tree.ready()
    assert await tree.stop() == 0
