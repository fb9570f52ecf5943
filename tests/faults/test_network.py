"""The connections between a daemon and its server break."""

import random

import pytest
import trio

from tests.faults.load import close_books, long, probe, quick, send
from tests.faults.tree import Tree
from tests.proxy import open_proxy


@pytest.fixture
def made():
    trees = []
    yield trees
    for tree in trees:
        tree.remove()


@pytest.mark.parametrize("resets", [9, pytest.param(200, marks=pytest.mark.long)])
async def test_after_each_reset_of_all_connections_a_task_completes_within_two_seconds(server, made, resets):
    dice = random.Random(resets)
    async with open_proxy(server.address) as proxy:
        tree = Tree(proxy.url)
        made.append(tree)
        await tree.start().ready()
        async with tree.client() as app, tree.client(server.url) as looking:
            # Sent past the bad network and through it.
            await send(tree, looking, long(10, 2.0))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: send(tree, app, quick(20 * resets), batch=10, pause=0.05, stubborn=True))
                for turn in range(resets):
                    await trio.sleep(dice.uniform(0.0, 0.3))
                    # A third of them come in a burst, before anybody has recovered.
                    tree.ledger.fault("reset", lasting=2.0)
                    assert proxy.reset() or turn % 3
                    if turn % 3 == 2:
                        await probe(tree, looking, 2.0)

            await close_books(tree, looking)
            runs = tree.ledger.runs()
            # A lost connection is no reason to run anything twice: the worker asks what it still holds.
            assert len(runs) == len(tree.ledger.sent)
            assert await tree.stop() == 0
