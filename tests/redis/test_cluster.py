"""A Redis that is a cluster: what belongs to all queues is in a slot of its own, and is kept in order all the same."""

from datetime import UTC, datetime

import pytest

from chicory import Chicory
from chicory.outcome import Dead, Done
from chicory.types import WorkerInfo
from tests.contract.harness import OOPS, ClusterHarness, message, receive, settle, taken_back, worker
from tests.servers import cluster_server

__all__ = ["cluster_server"]


@pytest.fixture
async def harness(cluster_server):
    harness = ClusterHarness(cluster_server)
    yield harness
    await harness.broker.aclose()
    await harness.backend.aclose()


async def test_workers_are_listed_until_they_leave_or_are_taken_for_dead(harness, cluster_server):
    app, broker = Chicory(harness.broker, harness.backend), harness.broker

    async def listed():
        return [one.name for one in await app.backend.get_active_workers()]

    async with worker(broker, name="b:1:1:1:1") as living:
        introduce(living)
        assert await living.renew()
        async with worker(broker, "other", name="a:1:1:1:1") as leaving:
            introduce(leaving, "other")
            assert await leaving.renew()
            assert await listed() == [leaving.name, living.name]
        assert await listed() == [living.name]

        await broker.publish(message())
        await receive(living, 1)
        await taken_back(broker, 1, dead=living.name)
        assert not await living.renew()

    assert await listed() == []
    with cluster_server.client() as client:
        assert client.exists(f"{broker.config.key_prefix}:workers") == 0
    await broker.purge_queue()


async def test_what_was_cancelled_and_settled_is_struck_off_the_list(harness, cluster_server):
    broker, key = harness.broker, f"{harness.broker.config.key_prefix}:{{cancelled}}"
    before, meanwhile, waiting = message(), message(), message()
    await broker.publish(before)
    await broker.cancel(before.id)
    await broker.cancel(waiting.id)

    with cluster_server.client() as client:
        async with worker(broker) as consumer:
            deliveries = await receive(consumer, 1)
            assert set(consumer.cancelled) == {before.id, waiting.id}
            await broker.publish(meanwhile)
            deliveries += await receive(consumer, 1)
            await broker.cancel(meanwhile.id)
            assert await settle(consumer, deliveries[:1], Done(None)) == [True]
            assert await settle(consumer, deliveries[1:], Dead(OOPS)) == [True]
            # Also where the list is read again before the next renewal.
            await consumer.reconcile([])
            assert set(consumer.cancelled) == {waiting.id}
            assert await consumer.renew()

            assert client.zrange(key, 0, -1) == [waiting.id.encode()]
        assert (await broker.counters())["failed"] == 2
        assert await broker.get_dlq_count() == 0


def introduce(consumer, queue="default"):
    since = datetime.now(UTC)
    consumer.introduce(
        lambda: WorkerInfo(name=consumer.name, host="h", pid=1, queues=[queue], concurrency=1, running=0, since=since)
    )
