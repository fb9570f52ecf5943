"""A task uses up the memory that the daemon may have."""

import os
import uuid
from pathlib import Path

import pytest

from tests.faults.load import close_books, long, message, quick, send
from tests.faults.tree import until

LIMIT = 400 * 2**20


@pytest.fixture(scope="module")
def group():
    """A control group with little memory, for the daemon and all its children."""
    root = Path("/sys/fs/cgroup")
    version_1 = root / "memory"
    made = (version_1 if version_1.is_dir() else root) / f"chicory-test-{uuid.uuid4().hex}"
    try:
        made.mkdir()
        (made / ("memory.limit_in_bytes" if version_1.is_dir() else "memory.max")).write_text(str(LIMIT))
    except OSError as error:
        pytest.skip(f"a control group with a limit of memory cannot be made here: {error}")
    yield made
    made.rmdir()


async def test_only_the_worker_whose_task_eats_the_memory_is_killed_and_the_letter_says_so(group, shared_tree, app):
    tree = shared_tree.start(wrapper=("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"))
    await tree.ready()
    daemon = tree.process.pid
    eater, others = message("eat", 2 * LIMIT // 2**20), long(20, 0.3) + quick(200)
    hunger = tree.ledger.fault("out of memory", lasting=float("inf"))
    await send(tree, app, [*others[:110], eater, *others[110:]])

    await until(lambda: "out of memory" in tree.log(), "the kernel has killed somebody")
    await close_books(tree, app, dead=[eater.id])
    tree.ledger.over(hunger)

    (letter,) = await app.broker.get_dlq_messages()
    assert "killed by SIGKILL, out of memory" in letter.error
    assert {slot["slot"]: slot["restarts"] for slot in tree.status()["slots"] if "worker" not in slot["slot"]} == {
        "template": 0,
        "scheduler": 0,
    }
    os.kill(daemon, 0)
    assert await tree.stop() == 0
