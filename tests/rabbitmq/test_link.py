"""The link to a real RabbitMQ: TLS, signs of life, large bodies, resets, and what a busy processor does to it."""

import threading
import time

import pytest
import trio

from chicory import BrokerType, Chicory
from chicory.config import BrokerConfig, ChicoryConfig, RabbitMQBrokerConfig
from chicory.errors import BrokerUnavailable, PublishUnknown
from chicory.links.amqp import connect
from chicory.links.amqp_address import address_from_url
from chicory.outcome import Done
from chicory.testing import running_worker
from tests.contract.harness import finish_all, message, receive, settle, worker
from tests.proxy import open_proxy


@pytest.fixture
async def proxy(rabbit_node):
    async with open_proxy(rabbit_node.address, resp=False) as opened:
        yield opened


@pytest.fixture
def shaky(brokers, proxy, vhost):
    """A broker through the proxy."""
    return lambda **settings: brokers(url=f"amqp://{proxy.address[0]}:{proxy.address[1]}/{vhost}", **settings)


@pytest.mark.aio_pika
async def test_tls_is_spoken_with_certificates_on_both_sides_and_strange_ones_are_refused(brokers, rabbit_node, vhost):
    place = f"amqps://guest:guest@127.0.0.1:{rabbit_node.tls_port}/{vhost}"
    ours = f"certfile={rabbit_node.certificate}&keyfile={rabbit_node.key}"

    trusting = brokers(url=f"{place}?cacertfile={rabbit_node.ca}&{ours}")
    await trusting.publish_many([message(args=["x" * 10_000]) for _ in range(300)])
    assert len(await finish_all(trusting, expected=300)) == 300

    for url in (place, f"{place}?{ours}", f"{place}?cacertfile={rabbit_node.ca}"):
        doubting = brokers(url=url, publish_timeout=0.1)
        with pytest.raises(BrokerUnavailable, match=r"no TLS here .*check the CA, the name and the certificates"):
            await doubting.ping()

    careless = brokers(url=f"{place}?verify=verify_none&{ours}")
    assert (await careless.ping()).startswith("RabbitMQ")


async def test_tls_refuses_a_server_of_another_name(brokers, rabbit_node, vhost):
    ours = f"cacertfile={rabbit_node.ca}&certfile={rabbit_node.certificate}&keyfile={rabbit_node.key}"
    elsewhere = brokers(url=f"amqps://localhost:{rabbit_node.tls_port}/{vhost}?{ours}")

    with pytest.raises(BrokerUnavailable, match="not valid for 'localhost'"):
        await elsewhere.ping()


@pytest.mark.aio_pika
async def test_one_byte_at_a_time_is_only_slow(shaky, proxy):
    broker = shaky()
    proxy.one_byte = True

    await broker.publish(message(args=["x" * 300]))
    assert len(await finish_all(broker, expected=1)) == 1


@pytest.mark.aio_pika
async def test_bodies_of_many_frames_arrive_whole(broker):
    sent = [message(args=["x" * size]) for size in (0, 131_000, 131_072, 200_000, 262_000)]

    await broker.publish_many(sent)

    assert [one.message for one in await finish_all(broker, expected=5)] == sent


@pytest.mark.aio_pika
async def test_a_publish_whose_confirm_is_lost_is_unknown_and_there(shaky, proxy, broker):
    through = shaky()
    await through.publish(message())

    proxy.blackhole(up=False)
    async with trio.open_nursery() as nursery:

        async def publish():
            with pytest.raises(PublishUnknown):
                await through.publish(message("doubtful"))

        nursery.start_soon(publish)
        with trio.fail_after(5):
            while (await broker.get_queue_sizes()).ready < 2:
                await trio.sleep(0.005)
        proxy.reset()
    proxy.heal()

    assert [one.message.name for one in await finish_all(broker, expected=2)] == ["work", "doubtful"]


async def test_a_silent_network_is_noticed_by_the_missing_heartbeats(proxy, vhost):
    address = address_from_url(f"amqp://127.0.0.1:{proxy.address[1]}/{vhost}")
    connection = await connect(address, timeout=5.0, heartbeat=1.0)
    channel = await connection.channel(timeout=5.0)

    proxy.blackhole()

    with trio.fail_after(10):
        await channel.over.wait()
    assert "not heard of for" in str(connection.error)
    proxy.heal()


async def test_idle_connections_stay(brokers):
    broker = brokers(heartbeat=1.0)
    await broker.publish(message())
    async with worker(broker) as consumer:
        deliveries = await receive(consumer, 1)
        lines = [broker._current_publisher()._line.connection, consumer._line.connection]

        await trio.sleep(4)

        assert [line.error for line in lines] == [None, None]
        assert await settle(consumer, deliveries, Done(None)) == [True]


async def test_a_processor_that_is_busy_in_a_thread_costs_no_connection(brokers):
    """As a synchronous task that only computes does."""
    broker = brokers(heartbeat=1.0)
    await broker.publish(message())
    stop = threading.Event()

    def compute():
        while not stop.is_set():
            sum(range(1000))

    async with worker(broker) as consumer, trio.open_nursery() as nursery:
        deliveries = await receive(consumer, 1)
        for _ in range(3):
            nursery.start_soon(trio.to_thread.run_sync, compute)
        try:
            await trio.sleep(5)
        finally:
            stop.set()
        assert await consumer.renew()
        assert await settle(consumer, deliveries, Done(None)) == [True]


async def test_a_loop_that_stood_still_for_less_than_the_lease_has_lost_nothing(brokers):
    broker = brokers(heartbeat=2.0)
    await broker.publish(message())

    async with worker(broker) as consumer:
        deliveries = await receive(consumer, 1)
        assert consumer.lease == 4
        time.sleep(3)

        assert await consumer.renew()
        assert await settle(consumer, deliveries, Done(None)) == [True]


@pytest.mark.native
@pytest.mark.parametrize("tls", [False, True])
async def test_a_loop_that_stood_still_for_longer_than_the_lease_has_lost_nothing(brokers, rabbit_node, vhost, tls):
    url = rabbit_node.url(vhost)
    if tls:
        ours = f"cacertfile={rabbit_node.ca}&certfile={rabbit_node.certificate}&keyfile={rabbit_node.key}"
        url = f"amqps://guest:guest@127.0.0.1:{rabbit_node.tls_port}/{vhost}?{ours}"
    broker = brokers(url=url, heartbeat=1.0)
    await broker.publish(message())

    async with worker(broker) as consumer:
        deliveries = await receive(consumer, 1)
        lines = [broker._current_publisher()._line.connection, consumer._line.connection]
        time.sleep(3.5)

        assert await consumer.renew()
        assert await settle(consumer, deliveries, Done(None)) == [True]
        await broker.publish(message())
        assert [line.error for line in lines] == [None, None]


@pytest.mark.native
async def test_nobody_beats_when_there_is_no_connection(brokers):
    # Callers of other kinds keep a connection, which is another test's.
    before = [thread for thread in threading.enumerate() if "pulse" in thread.name]
    broker = brokers(heartbeat=1.0)
    await broker.publish(message())
    assert any(thread.name == "chicory amqp pulse" for thread in threading.enumerate())

    await broker.aclose()

    with trio.fail_after(5):
        while [thread for thread in threading.enumerate() if "pulse" in thread.name] != before:
            await trio.sleep(0.01)


async def test_a_task_that_blocks_the_loop_for_longer_than_the_lease_runs_once(rabbit_node, vhost):
    rabbitmq = RabbitMQBrokerConfig(url=rabbit_node.url(vhost), heartbeat=1.0)
    app = Chicory(BrokerType.RABBITMQ, config=ChicoryConfig(broker=BrokerConfig(rabbitmq=rabbitmq)))
    runs = []

    @app.task(name="block")
    async def block() -> None:
        runs.append("begun")
        time.sleep(3.5)
        runs.append("ended")

    async with app, running_worker(app) as serving:
        await block.send()
        await serving.settled(1)
        assert (await app.broker.get_queue_sizes()).ready == 0
        assert (await app.broker.counters())["done"] == 1

    assert runs == ["begun", "ended"]
