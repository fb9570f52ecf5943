"""The daemon is PID 1, as it is in a container."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.faults.load import close_books, long, quick, send
from tests.faults.tree import until

NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child=SIGTERM")


@pytest.fixture(scope="module", autouse=True)
def possible():
    if os.geteuid() or subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a pid namespace needs root, and a system that allows it")


def child_of(pid):
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


async def test_as_pid_1_it_reaps_orphans_that_are_not_its_own_and_stops_well(shared_tree, app):
    tree = shared_tree.start(wrapper=NAMESPACE)
    await tree.ready()
    daemon = child_of(tree.process.pid)
    await send(tree, app, long(10, 0.5) + quick(200))

    children = Path(f"/proc/{daemon}/task/{daemon}/children")
    before = set(children.read_text().split())

    # Their parent ends first, so that they become the daemon's; then they end with these codes.
    orphans = "(sleep 0.2; exit 3) & (sleep 0.2; exit 4) & exit 0"
    subprocess.run(["nsenter", "-t", str(daemon), "--pid", "--mount", "sh", "-c", orphans], check=True, timeout=20)
    await until(lambda: set(children.read_text().split()) == before, "the orphans are reaped")

    await close_books(tree, app)
    assert len(tree.ledger.runs()) == len(tree.ledger.sent)
    status = tree.status()
    assert status["pid"] == 1
    assert {slot["restarts"] for slot in status["slots"]} == {0}
    os.kill(daemon, 15)
    assert await tree.gone() == 0
    assert tree.left() == []
