"""Daemons on a cluster of three RabbitMQ nodes with quorum queues, of which one is killed after the other."""

import pytest
import trio

from chicory.brokers.base import Settlement
from chicory.brokers.rabbitmq import RabbitMQBroker
from chicory.config import RabbitMQBrokerConfig
from chicory.outcome import Dead, Done, RetryIn
from tests.cluster import running_cluster
from tests.contract.harness import OOPS, finish_all, message, receive, worker
from tests.faults.load import probe, quick, send
from tests.faults.rabbit_tree import QUEUE, RabbitTree, close_books

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cluster():
    with running_cluster() as running:
        yield running


@pytest.fixture(scope="module")
def shared_tree(cluster):
    made = RabbitTree(cluster, queue_type="quorum", worker={"max_deliveries": 1000})
    yield made
    made.remove()


async def test_the_basics_hold_from_whichever_node(cluster):
    vhost = cluster.vhost()
    brokers = [RabbitMQBroker(RabbitMQBrokerConfig(url=node.url(vhost), queue_type="quorum")) for node in cluster.nodes]
    sender, other, third = brokers
    kept, retried, dead = message(), message("retried"), message("dead")
    await sender.publish_many([kept, retried, dead])
    await other.publish(later := message("later"), delay=0.2)

    async with worker(other) as consumer:
        held = {one.message.id: one for one in await receive(consumer, 4)}
        settlements = [
            Settlement(held[kept.id], Done(None)),
            Settlement(held[later.id], Done(None)),
            Settlement(held[retried.id], RetryIn(0.05, retried, OOPS)),
            Settlement(held[dead.id], Dead(OOPS)),
        ]
        assert list(await consumer.settle(settlements)) == [True] * 4

    assert [letter.task_id for letter in await third.get_dlq_messages()] == [dead.id]
    assert await third.replay_from_dlq(dead.id)
    assert {one.message.id for one in await finish_all(third, expected=2)} == {retried.id, dead.id}
    for broker in brokers:
        await broker.aclose()


@pytest.mark.parametrize("whom", ["the node of the workers", "the leader of the queue"])
async def test_a_killed_node_loses_nothing_and_another_takes_over_within_seconds(cluster, tree, app, whom):
    load = quick(1500)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: send(tree, app, load, batch=10, pause=0.02, stubborn=True))
        await trio.sleep(0.5)
        if whom == "the node of the workers":
            (name,) = cluster.connected(tree.vhost)
            node = next(node for node in cluster.nodes if node.name == name)
        else:
            node = cluster.leader(tree.vhost, QUEUE)
        killed = tree.ledger.fault(f"{whom} killed", lasting=float("inf"))
        await trio.to_thread.run_sync(node.kill)
        await probe(tree, app, 5.0)
        tree.ledger.over(killed)
    await close_books(tree, app, overlapping=True)

    await trio.to_thread.run_sync(node.start)
    await probe(tree, app, 5.0)
    await close_books(tree, app)


async def test_the_daemon_ends_well(shared_tree):
    assert await shared_tree.stop() == 0
    assert "Traceback" not in shared_tree.log()
