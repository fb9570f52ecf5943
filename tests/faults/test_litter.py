"""Tasks leave processes behind."""

import pytest

from tests.faults.load import close_books, message, quick, send
from tests.faults.tree import until


@pytest.mark.parametrize("count", [30, pytest.param(1000, marks=pytest.mark.long)])
async def test_what_tasks_leave_behind_is_reaped_when_it_ends_and_killed_at_a_stop(tree, app, count):
    fleet = 1 + len(tree.status()["slots"])

    await send(tree, app, quick(200) + [message("litter") for _ in range(count)] + quick(200, seed=2))
    await close_books(tree, app)

    assert len(tree.ledger.runs()) == len(tree.ledger.sent)
    # Those that end have ended; no zombie is left of them.
    await until(lambda: len(tree.left()) == fleet + count and not tree.zombies(), "the dead are reaped", 10.0)
    assert {slot["restarts"] for slot in tree.workers()} == {0}
    # Nothing is left then.
    assert await tree.stop() == 0
    assert f"killed {count} processes that tasks had left behind" in tree.log()
