"""A server that went away and came back finds everybody at work again, and nobody taken for dead meanwhile."""

import logging

import pytest
import trio

from chicory.brokers.base import Settlement
from chicory.errors import BrokerUnavailable
from chicory.outcome import Done
from chicory.types import TaskMessage
from tests.proxy import open_proxy
from tests.redis.test_lost_replies import received, settled
from tests.servers import running_server


@pytest.fixture
def own_server():
    with running_server(appendonly=True, options=["--appendfsync", "always"]) as server:
        yield server


async def test_a_killed_server_loses_nothing_and_work_goes_on(brokers, own_server):
    broker = brokers(own_server.url, block_ms=500)
    async with broker.consumer(["default"], name="w", limit=10) as consumer:
        await broker.publish(TaskMessage(id="held", name="t"))
        (held,) = await consumer.receive(10)
        for round_ in range(3):
            await trio.to_thread.run_sync(own_server.restart)
            await broker.publish(TaskMessage(id=f"after-{round_}", name="t"))

            (next_,) = await received(consumer)

            assert next_.message.id == f"after-{round_}"
            assert list(await settled(consumer, [Settlement(next_, Done(None))])) == [True]
        assert await consumer.renew()
        assert list(await settled(consumer, [Settlement(held, Done(None))])) == [True]


async def test_a_publisher_rides_over_a_restart(brokers, own_server):
    broker = brokers(own_server.url)
    await broker.publish(TaskMessage(name="warm-up"))
    own_server.kill()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(broker.publish, TaskMessage(name="t"))
        await trio.to_thread.run_sync(own_server.start)

    assert (await broker.get_queue_sizes()).ready == 2


async def test_nobody_is_taken_for_dead_because_the_server_was_away(brokers, own_server):
    broker = brokers(own_server.url, claim_min_idle_ms=400)
    async with broker.consumer(["default"], name="w", limit=5) as consumer, broker.keeper(["default"]) as keeper:
        await broker.publish(TaskMessage(name="t"))
        (delivery,) = await consumer.receive(1)
        assert await keeper.reclaim() == 0
        own_server.kill()
        await trio.sleep(0.5)  # the lease runs out while nobody could have renewed it
        await trio.to_thread.run_sync(own_server.start)

        with pytest.raises(BrokerUnavailable):
            await keeper.reclaim()
        assert await keeper.reclaim() == 0

        assert await consumer.renew()
        assert list(await settled(consumer, [Settlement(delivery, Done(None))])) == [True]


async def test_a_keeper_that_begins_in_an_outage_takes_nobody_for_dead_either(brokers, own_server, tmp_path):
    async with open_proxy(own_server.address, unix=tmp_path / "p") as proxy:
        broker, cut = brokers(own_server.url, claim_min_idle_ms=400), brokers(proxy.url, claim_min_idle_ms=400)
        async with broker.consumer(["default"], name="w", limit=5) as consumer:
            await broker.publish(TaskMessage(name="t"))
            await consumer.receive(1)
            await trio.sleep(0.5)  # the lease runs out, as if nobody could have renewed it
            with own_server.client() as client:
                while client.info("server")["uptime_in_seconds"] < 1:
                    await trio.sleep(0.05)

            async with cut.keeper(["default"]) as keeper:
                proxy.refusing = True
                with pytest.raises(BrokerUnavailable):
                    await keeper.promote()
                proxy.heal()
                assert await keeper.reclaim() == 0

            assert await consumer.renew()


async def test_who_stays_silent_after_the_servers_return_is_taken_for_dead_one_lease_later(brokers, own_server):
    broker = brokers(own_server.url, claim_min_idle_ms=300)
    async with broker.keeper(["default"]) as keeper, broker.consumer(["default"], name="w", limit=5) as consumer:
        await broker.publish(TaskMessage(name="t"))
        await consumer.receive(1)
        with trio.fail_after(10):
            while not await keeper.reclaim():
                await trio.sleep(0.01)
        assert not await consumer.renew()


async def test_a_worker_that_was_frozen_over_its_end_learns_of_it_though_its_read_was_served(brokers, own_server):
    broker = brokers(own_server.url, claim_min_idle_ms=60_000, block_ms=500)
    async with broker.consumer(["default"], name="frozen", limit=5) as frozen, broker.keeper(["default"]) as keeper:
        await broker.publish(TaskMessage(name="t"))
        await frozen.receive(1)
        await keeper.reclaim(dead="frozen")

        # It wakes up, and its read is served before it asks for its lease.
        (again,) = await frozen.receive(1)
        await keeper.reclaim()

        assert again.count == 2
        assert not await frozen.renew()


async def test_whoever_has_no_lease_gets_one_full_lease(brokers, own_server):
    broker = brokers(own_server.url, claim_min_idle_ms=300)
    async with (
        broker.keeper(["default"]) as keeper,
        broker.consumer(["default"], name="silent", limit=1) as silent,
        broker.consumer(["default"], name="bereft", limit=1) as bereft,
    ):
        await broker.publish(TaskMessage(name="t"))
        await silent.receive(1)
        with trio.fail_after(10):
            while not await keeper.reclaim():
                await bereft.renew()  # from here on the keeper judges by silence
        await bereft.receive(1)
        with own_server.client() as client:
            (leases,) = client.keys("*:leases:*")
            client.delete(leases)
        begin = trio.current_time()

        with trio.fail_after(10):
            while not await keeper.reclaim():
                await trio.sleep(0.01)

        assert trio.current_time() - begin >= 0.3


async def test_a_flushed_server_is_set_up_again_and_says_so(brokers, own_server, caplog):
    broker = brokers(own_server.url, block_ms=500)
    async with broker.consumer(["default"], name="w", limit=5) as consumer:
        await broker.publish(TaskMessage(id="gone", name="t"))
        (gone,) = await consumer.receive(1)
        with own_server.client() as client:
            client.flushall()
        await broker.publish(TaskMessage(id="new", name="t"))

        with caplog.at_level(logging.ERROR):
            (new,) = await received(consumer)

        assert new.message.id == "new"
        assert "lost its state" in caplog.text
        assert list(await consumer.settle([Settlement(gone, Done(None))])) == [False]
        assert list(await consumer.settle([Settlement(new, Done(None))])) == [True]


async def test_deliveries_that_somebody_deleted_are_counted_as_lost_and_told(brokers, own_server, caplog):
    broker = brokers(own_server.url)
    await broker.publish_many([TaskMessage(name="t") for _ in range(3)])
    async with broker.consumer(["default"], name="dead", limit=3) as consumer, broker.keeper(["default"]) as keeper:
        held = [one for _ in range(3) for one in await consumer.receive(1)]
        with own_server.client() as client:
            client.xdel(held[0].receipt.stream, held[0].receipt.entry)

        assert await keeper.reclaim(dead="dead", why="killed by SIGKILL") == 2

    assert (await broker.counters())["lost"] == 1
    assert "1 deliveries vanished from the stream: these tasks are lost" in caplog.text


async def test_forgotten_scripts_are_given_again(brokers, own_server):
    broker = brokers(own_server.url, max_priority=1, block_ms=500)
    async with broker.consumer(["default"], name="w", limit=5) as consumer, broker.keeper(["default"]) as keeper:
        with own_server.client() as client:
            for urgency in (0, 1):
                client.script_flush()
                await broker.publish(TaskMessage(name="t", priority=urgency))
                client.script_flush()
                await keeper.promote()
                client.script_flush()
                (delivery,) = await received(consumer)
                client.script_flush()
                assert list(await consumer.settle([Settlement(delivery, Done(None))])) == [True]


async def test_a_cancelled_receive_strands_nothing(direct):
    async with direct.consumer(["default"], name="w", limit=100) as consumer:
        seen = set()
        for number in range(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(direct.publish, TaskMessage(id=f"m{number}", name="t"))
                with trio.move_on_after(0.0004 * (number % 8)):
                    seen |= {d.message.id for d in await consumer.receive(5)}
        while len(seen) < 60:
            with trio.fail_after(5):
                seen |= {d.message.id for d in await consumer.receive(60)}

        assert seen == {f"m{number}" for number in range(60)}
