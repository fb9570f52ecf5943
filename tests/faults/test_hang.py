"""A worker hangs for good."""

import pytest

from tests.faults.load import close_books, long, message, send
from tests.faults.tree import until

HANG = 3.0


@pytest.fixture(scope="module")
def settings():
    return {"supervisor": {"hang_timeout": HANG}}


async def test_a_worker_that_hangs_is_shown_aborted_and_its_task_run_elsewhere(tree, app):
    stalled, others = message("stall"), long(40, 0.0)
    await send(tree, app, [stalled])
    begun = (await until(tree.ledger.running, "it runs"))[0]
    hanging = tree.ledger.fault("hang", begun.pid, lasting=float("inf"))

    # Which task it was, and where it stands.
    await until(lambda: stalled.id in tree.log() and "in stall" in tree.log(), "it is shown", 4.0)
    await send(tree, app, others, batch=1, pause=0.01)
    await close_books(tree, app)
    tree.ledger.over(hanging)

    again = [run for run in tree.ledger.runs() if run.id == stalled.id]
    assert [run.count for run in again] == [1, 2]
    # The last sign of life may be as old as a beat; an abort that shows the stack takes a moment.
    assert again[1].start - begun.start <= HANG + 6.0
    assert await tree.stop() == 0
