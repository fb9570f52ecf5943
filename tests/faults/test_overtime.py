"""Threads that hang although their time is over, below chicoryd."""

import pytest

from chicory.worker.overtime import FEW
from tests.faults.load import message, send
from tests.faults.tree import until

PLACES = 4
# For its successor.
MORE = 2

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def settings():
    return {"worker": {"concurrency": PLACES, "timeout_grace": 0.2}, "supervisor": {"workers": 1}}


async def test_a_worker_in_which_too_many_hang_is_replaced_and_nobody_waits_for_them(tree, app):
    (before,) = tree.pids()
    hanging = [message("dig", 600.0, timeout=0.1) for _ in range(FEW + PLACES + MORE)]
    after = message("work", 0.0)
    await send(tree, app, [*hanging, after])

    for one in hanging:
        failure = (await app.result(one.id).wait(timeout=30)).failure
        assert failure.type == "TaskTimeout"
    pid = await app.result(after.id).get(timeout=30)
    await until(lambda: before not in tree.left(), "the first one has left")

    assert pid != before
    assert f"is being replaced: {FEW} runs that it has abandoned go on" in tree.log()
    assert "worker-1.old has left" in tree.log()
    assert {letter.task_id for letter in await app.broker.get_dlq_messages()} == {one.id for one in hanging}
    assert "starts again" not in tree.log()
    assert await tree.stop() == 0
