"""Tasks that kill their worker, among tasks that do nothing wrong."""

import pytest

from tests.faults.load import close_books, long, message, quick, send

DEADLY = {"exit": "exited with status 1", "SIGSEGV": "killed by SIGSEGV", "SIGKILL": "killed by SIGKILL"}


@pytest.mark.parametrize("rounds", [1, pytest.param(3, marks=pytest.mark.long)])
async def test_poison_is_a_dead_letter_after_three_deliveries_and_nobody_beside_it_is(tree, app, rounds):
    poison = [message("poison", how) for how in DEADLY for _ in range(rounds)]
    innocent = long(18, 1.0) + quick(100 * rounds)
    # To those beside them the deaths are faults like any other: who was in flight may run again.
    deadly = tree.ledger.fault("poison", lasting=float("inf"))

    await send(tree, app, innocent[:9] + poison[:2] + innocent[9:18] + poison[2:] + innocent[18:])
    await close_books(tree, app, dead={each.id for each in poison}, patience=60 * rounds)
    tree.ledger.over(deadly)

    runs = tree.ledger.runs()
    letters = {letter.task_id: letter for letter in await app.broker.get_dlq_messages(count=1000)}
    for each in poison:
        # A delivery may have died with its worker, of another poison, before it started.
        assert max(run.count for run in runs if run.id == each.id) == 3
        assert "delivered 3 times" in letters[each.id].error
        # It was alone when it died last, so the cause is its own.
        assert DEADLY[each.args[0]] in letters[each.id].error
    assert await tree.stop() == 0
