"""A worker lives, beats, and fetches nothing."""

import pytest

from tests.faults.load import close_books, long, message, send
from tests.faults.tree import until


@pytest.fixture(scope="module")
def settings():
    return {"supervisor": {"workers": 1}}


@pytest.mark.long
async def test_a_worker_that_fetches_nothing_is_told_to_connect_anew_and_then_replaced(tree, app):
    await send(tree, app, [message("deafen")])
    await until(tree.ledger.ended, "it is deaf")

    # The read under way brings one more batch.
    await send(tree, app, long(30, 0.1), batch=1)

    await until(lambda: "it is to connect anew" in tree.log(), "that is seen", 60.0)
    await until(lambda: "it fetches nothing although there is work" in tree.log(), "that did not help", 100.0)
    await close_books(tree, app)
    assert len(tree.ledger.runs()) == len(tree.ledger.sent)
    assert await tree.stop() == 0
