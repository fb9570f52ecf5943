"""The second data path: aio-pika on a loop inside the trio run, and what its users and their logs notice of it."""

import asyncio
import logging
import sys

import aio_pika
import pytest
import trio
import trio.testing

from chicory import BackendType, BrokerType, Chicory
from chicory.config import BrokerConfig, ChicoryConfig, RabbitMQBrokerConfig
from chicory.drivers import open_broker
from chicory.errors import BrokerRefused, BrokerUnavailable, ConfigError, PayloadError
from chicory.links import amqp_methods
from chicory.links.amqp_address import Address, address_from_url
from chicory.links.amqp_asyncio import connect
from chicory.links.amqp_frames import Outgoing
from chicory.links.amqp_port import ChannelError, Fate, Got
from chicory.secret import SecretStr
from chicory.testing import running_worker

TIMEOUT = 5.0


async def native():
    """Which loop runs this."""
    return type(asyncio.get_running_loop()).__name__


NATIVE = asyncio.run(native())


@pytest.fixture
async def connection(rabbit_node, vhost):
    opened = await connect(address_from_url(rabbit_node.url(vhost)), timeout=TIMEOUT, heartbeat=30.0)
    yield opened
    opened.close()


@pytest.fixture
async def channel(connection):
    opened = await connection.channel(timeout=TIMEOUT)
    await opened.call(amqp_methods.queue("q", durable=False, exclusive=True), timeout=TIMEOUT)
    return opened


async def landed(batch):
    with trio.fail_after(TIMEOUT):
        await batch.done.wait()
    return batch.fates


def letter(name, queue="q"):
    return Outgoing("", queue, name, name.encode(), persistent=False)


# Around it


async def test_asyncio_is_native_before_while_and_after_an_app_uses_it(rabbit_node, vhost):
    rabbitmq = RabbitMQBrokerConfig(url=rabbit_node.url(vhost), data_path="aio-pika")
    config = ChicoryConfig(broker=BrokerConfig(type=BrokerType.RABBITMQ, rabbitmq=rabbitmq))
    app = Chicory(BrokerType.RABBITMQ, BackendType.RPC, config)

    @app.task(name="plain")
    def plain():
        return asyncio.run(native())

    @app.task(name="flavored", flavor="asyncio")
    async def flavored():
        return await native()

    async with app, running_worker(app):
        for task in (plain, flavored):
            with trio.fail_after(10):
                assert await (await task.delay()).get() == NATIVE
        assert asyncio.run(native()) == NATIVE

    assert asyncio.run(native()) == NATIVE


async def test_its_libraries_log_nothing_of_ours_and_go_on_logging_for_others(rabbit_node, vhost, caplog):
    caplog.set_level(logging.DEBUG)
    address = address_from_url(rabbit_node.url(vhost))
    wrong = Address(host=address.host, port=address.port, vhost=vhost, password=SecretStr("canary-7"))

    with pytest.raises(BrokerRefused):
        await connect(wrong, timeout=TIMEOUT, heartbeat=30.0)
    opened = await connect(address, timeout=TIMEOUT, heartbeat=30.0)
    channel = await opened.channel(timeout=TIMEOUT)
    with pytest.raises(ChannelError):
        await channel.call(amqp_methods.inspect("nothing"), timeout=TIMEOUT)
    rabbit_node.close_all_connections()
    with trio.fail_after(TIMEOUT):
        await opened._gone.wait()

    assert {record.name.partition(".")[0] for record in caplog.records} <= {"chicory", "asyncio"}
    assert "canary-7" not in caplog.text

    async def theirs():
        async with await aio_pika.connect(rabbit_node.url(vhost)):
            pass

    await trio.to_thread.run_sync(asyncio.run, theirs())
    assert "aiormq" in {record.name.partition(".")[0] for record in caplog.records}


@pytest.mark.parametrize("missing", ["aio_pika", "trio_asyncio"])
def test_a_package_that_is_missing_is_named_with_its_remedy(monkeypatch, missing):
    for name in [name for name in sys.modules if name.startswith(("chicory.links.amqp_asyncio", "chicory.links.trio"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    config = ChicoryConfig(
        broker=BrokerConfig(type=BrokerType.RABBITMQ, rabbitmq=RabbitMQBrokerConfig(data_path="aio-pika"))
    )

    with pytest.raises(ConfigError) as refused:
        open_broker(config)

    assert f"import of {missing} halted" in str(refused.value)
    assert str(refused.value).endswith("install it with: pip install 'chicoryd[aio-pika]'")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("place", ["a/b", "50% off", "x ?#&+y"])
async def test_names_and_passwords_of_any_kind_arrive_as_they_are(rabbit_node, place):
    rabbit_node.evaluate(f'rabbit_vhost:add(<<"{place}">>, <<"tests">>).')
    rabbit_node.let_in("eve/1", "p:%2F@ ?", place, ".*", ".*", ".*")
    address = address_from_url(rabbit_node.url())
    eve = Address(host=address.host, port=address.port, vhost=place, username="eve/1", password=SecretStr("p:%2F@ ?"))

    opened = await connect(eve, timeout=TIMEOUT, heartbeat=30.0)

    assert opened.product.startswith("RabbitMQ 3.")
    await opened.aclose(timeout=TIMEOUT)


async def test_the_one_name_that_it_cannot_say_is_refused():
    with pytest.raises(BrokerRefused, match="takes %2F in the name of a virtual host for a slash; go native"):
        await connect(Address(vhost="a%2Fb"), timeout=TIMEOUT, heartbeat=30.0)


# In it


async def test_of_one_id_in_flight_twice_each_has_its_own_fate(channel):
    batch = channel.publish([letter("same"), letter("same", "nowhere"), letter("same"), letter("other")])
    again = channel.publish([letter("same", "nowhere"), letter("same")])

    assert await landed(batch) == [Fate.TAKEN, Fate.RETURNED, Fate.TAKEN, Fate.TAKEN]
    assert await landed(again) == [Fate.RETURNED, Fate.TAKEN]


async def test_what_a_full_queue_does_not_take_is_rejected(channel):
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    await channel.call(amqp_methods.queue("one", arguments, durable=False, exclusive=True), timeout=TIMEOUT)

    assert await landed(channel.publish([letter("a", "one"), letter("b", "one")])) == [Fate.TAKEN, Fate.REJECTED]


async def test_callers_that_are_cancelled_take_nothing_with_them(channel):
    for deadline in (0.0, 0.0, 0.0005, 0.001, 0.002):
        with trio.move_on_after(deadline):
            await channel.call(amqp_methods.purge("q"), timeout=TIMEOUT)
        with trio.move_on_after(deadline):
            await channel.publish([letter("a")]).done.wait()

    assert channel.error is None
    assert (await channel.call(amqp_methods.inspect("q"), timeout=TIMEOUT)).message_count >= 1
    assert await landed(channel.publish([letter("b")])) == [Fate.TAKEN]


async def test_a_channel_whose_opener_is_cancelled_is_closed(connection):
    for deadline in (0.0, 0.0005, 0.001):
        with trio.move_on_after(deadline):
            # One that was quick enough is its owner's to close.
            (await connection.channel(timeout=TIMEOUT)).close()

    with trio.fail_after(TIMEOUT):
        while connection._channels:
            await trio.sleep(0.001)
    assert connection.error is None


async def test_what_is_published_and_has_no_fate_when_the_channel_ends_is_unknown(connection, channel):
    batch = channel.publish([letter("a")])
    connection.close()

    assert await landed(batch) == [Fate.UNKNOWN]
    assert isinstance(batch.error, BrokerUnavailable)
    with pytest.raises(BrokerUnavailable):
        channel.publish([letter("b")])


async def test_headers_that_fit_into_no_frame_are_refused_before_anything_is_sent(channel):
    with pytest.raises(PayloadError, match="do not fit into a frame"):
        channel.publish([letter("a"), Outgoing("", "q", "b", b"", {"x": "y" * 200_000})])

    assert (await channel.call(amqp_methods.inspect("q"), timeout=TIMEOUT)).message_count == 0


async def test_messages_are_asked_for_one_by_one_until_there_are_none_and_again_when_there_are(channel):
    await landed(channel.publish([letter(name) for name in "abc"]))
    gets = [channel.ask(amqp_methods.get("q")) for _ in range(6)]
    found = await channel.answers(gets, timeout=TIMEOUT)

    assert [got and got.content.body for got in found] == [b"a", b"b", b"c", None, None, None]

    asked = [channel.ask(method) for method in (amqp_methods.recover(), *[amqp_methods.get("q")] * 4)]
    _, *found = await channel.answers(asked, timeout=TIMEOUT)
    assert [isinstance(got, Got) for got in found] == [True, True, True, False]


async def test_goodbye_is_said_after_the_last_words(rabbit_node, vhost):
    address = address_from_url(rabbit_node.url(vhost))
    opened = await connect(address, timeout=TIMEOUT, heartbeat=30.0)
    channel = await opened.channel(timeout=TIMEOUT)
    await channel.call(amqp_methods.queue("kept", durable=True), timeout=TIMEOUT)
    await landed(channel.publish([letter(str(number), "kept") for number in range(300)]))
    arrived = []
    channel.delivered = arrived.append
    await channel.call(amqp_methods.consume("kept", "me"), timeout=TIMEOUT)
    with trio.fail_after(TIMEOUT):
        while len(arrived) < 300:
            await trio.sleep(0.001)

    for delivered in arrived:
        channel.ack(delivered.tag)
    await opened.aclose(timeout=TIMEOUT)

    after = await connect(address, timeout=TIMEOUT, heartbeat=30.0)
    found = await (await after.channel(timeout=TIMEOUT)).call(amqp_methods.inspect("kept"), timeout=TIMEOUT)
    assert found.message_count == 0
    await after.aclose(timeout=TIMEOUT)


async def test_channels_that_come_and_go_leave_nothing_behind(connection):
    async def rounds(count):
        for _ in range(count):
            channel = await connection.channel(timeout=TIMEOUT)
            channel.close()
            with trio.fail_after(TIMEOUT):
                await channel.gone.wait()
        theirs = connection._theirs.transport.connection
        return len(theirs._closing._callbacks), len(theirs.channels), len(connection._channels)

    assert await rounds(3) == await rounds(30)


def test_a_run_that_forgets_its_connection_ends_all_the_same(rabbit_node, caplog):
    async def forget():
        opened = await connect(address_from_url(rabbit_node.url()), timeout=TIMEOUT, heartbeat=30.0)
        channel = await opened.channel(timeout=TIMEOUT)
        channel.ask(amqp_methods.inspect("nothing"))
        channel.publish([letter("a") for _ in range(50)])
        return opened

    opened = trio.run(forget)

    assert opened.closed
    assert not caplog.records
