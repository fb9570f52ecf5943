"""Workers make way for fresh ones after so many tasks, under load."""

import pytest
import trio

from tests.faults.load import close_books, long, quick, send
from tests.faults.tree import until

WORKERS = 3


@pytest.fixture(scope="module")
def settings():
    return {"supervisor": {"workers": WORKERS, "max_tasks": 50, "jitter": 0.2}}


async def watch(tree, seen):
    """Note in *seen* all that status shows of the workers, as (slot, state) pairs."""
    while True:
        status = await trio.to_thread.run_sync(tree.status)
        if status is not None:
            seen.append([(s["slot"], s["state"]) for s in status["slots"] if s["slot"].startswith("worker")])
        await trio.sleep(0.02)


@pytest.mark.parametrize("replaced", [4, pytest.param(60, marks=pytest.mark.long)])
async def test_workers_are_replaced_one_at_a_time_and_new_first_and_nothing_runs_twice(tree, app, replaced):
    seen = []
    await send(tree, app, long(6, 2.0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, tree, seen)
        seed = 0
        while tree.log().count("is being replaced: it has run") < replaced:
            seed += 1
            await send(tree, app, quick(20, seed=seed), batch=10, pause=0.02)
        await close_books(tree, app, patience=60.0)
        await until(lambda: all(slot["state"] == "ready" for slot in tree.workers()), "nobody is leaving any more")
        nursery.cancel_scope.cancel()

    assert len(tree.ledger.runs()) == len(tree.ledger.sent)
    assert min(sum(state == "ready" for _, state in each) for each in seen) >= WORKERS
    # One who comes or goes beside those who stay.
    assert max(len(each) for each in seen) == WORKERS + 1
    assert tree.log().count("has left") >= replaced - 1
    assert "WARNING" not in tree.log()
    assert await tree.stop() == 0
