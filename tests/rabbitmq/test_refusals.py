"""Servers, accounts, queues and messages that cannot be worked with: a line that says what to do, and nothing lost."""

import socket
from contextlib import contextmanager

import pytest
import trio

from chicory.brokers.base import Settlement
from chicory.delay import MAX_DELAY
from chicory.errors import (
    BrokerRefused,
    BrokerUnavailable,
    ConfigError,
    PayloadError,
    PublishUnknown,
    QueueFull,
)
from chicory.outcome import Dead, Done, Release, RetryIn
from chicory.schedules.entry import Entry
from chicory.types import Undecodable
from tests.contract.harness import OOPS, finish_all, message, receive, settle, worker
from tests.pages import ROOT
from tests.rabbitmq.persistence import eventually
from tests.servers import free_port


def url(node, vhost, userinfo="guest:guest"):
    return f"amqp://{userinfo}@127.0.0.1:{node.port}/{vhost}"


@pytest.mark.aio_pika
@pytest.mark.parametrize(
    ("userinfo", "place"), [("guest:wrong-canary", ""), ("nobody:wrong-canary", ""), ("guest:guest", "no-such-vhost")]
)
async def test_a_wrong_password_and_a_missing_vhost_are_said_to_be(brokers, rabbit_node, vhost, userinfo, place):
    broker = brokers(url=url(rabbit_node, place or vhost, userinfo))

    for operation in (broker.ping, lambda: broker.publish(message())):
        with pytest.raises(
            BrokerRefused, match="check username, password, and that the virtual host exists"
        ) as refused:
            await operation()
        assert "canary" not in str(refused.value)


async def test_nobody_there_is_unavailable_and_says_where(brokers):
    broker = brokers(url=f"amqp://127.0.0.1:{free_port()}/x", publish_timeout=0.1)

    with pytest.raises(BrokerUnavailable, match=r"amqp://127.0.0.1:\d+/x: cannot connect"):
        await broker.publish(message())


@pytest.mark.aio_pika
async def test_something_else_that_answers_is_named(brokers):
    async def chatter(stream):
        await stream.receive_some(8)
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, chatter, 0)
        port = listeners[0].socket.getsockname()[1]
        broker = brokers(url=f"amqp://127.0.0.1:{port}/", publish_timeout=0.1)
        with pytest.raises(BrokerUnavailable, match="does not speak AMQP"):
            await broker.ping()
        nursery.cancel_scope.cancel()


@pytest.mark.aio_pika
async def test_one_that_accepts_and_says_nothing_is_given_up(brokers):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        broker = brokers(url=f"amqp://127.0.0.1:{port}/", publish_timeout=0.1, connect_timeout=0.2)

        with pytest.raises(BrokerUnavailable, match=r"no answer in 0\.2 s"):
            await broker.ping()


async def test_other_settings_for_a_queue_are_refused_and_delete_nothing(brokers, broker):
    await broker.publish(message())

    other = brokers(max_priority=5)
    with pytest.raises(BrokerRefused, match=r"chicory.queue.default: it was declared with other settings .*x-max-prio"):
        await other.publish(message())
    with pytest.raises(BrokerRefused, match="nothing was changed"):
        async with worker(other):
            pass

    assert (await broker.get_queue_sizes()).ready == 1


@pytest.mark.parametrize("settings", [{"max_priority": 3}, {"durable": False}])
async def test_quorum_queues_cannot_do_everything(brokers, settings):
    with pytest.raises(ConfigError, match="quorum queues"):
        brokers(queue_type="quorum", **settings)


async def test_foreign_and_corrupt_messages_are_dead_letters_in_the_end(broker):
    from chicory.brokers.rabbitmq.mail import Parcel
    from chicory.links.amqp_frames import Outgoing

    names = broker._names_of("default")
    foreign = [
        Outgoing("", names.main, "odd", b"\xff\x00", {"chicory-deliveries": "many", "chicory-rest": "soon"}),
        Outgoing("", names.main, "x" * 200, b"", {"chicory-deliveries": -3, "chicory-cause": 7, "nested": {"a": [1]}}),
        Outgoing("", names.main, "", b"{}" * 100_000),
    ]
    await broker._current_publisher().deliver([Parcel(names, one) for one in foreign])
    await broker.publish(message())

    async with worker(broker) as consumer:
        *bad, good = await receive(consumer, 4)
        assert [type(one.message) for one in bad] == [Undecodable] * 3
        assert [one.count for one in bad] == [1, 1, 1]
        await settle(consumer, bad, Dead(OOPS))
        await settle(consumer, [good], Done(None))

    assert [one.original_message.raw for one in await broker.get_dlq_messages()] == [one.body for one in foreign]


async def test_the_permissions_that_the_page_names_are_enough_and_fewer_are_refused(brokers, rabbit_node, vhost):
    page = (ROOT / "docs" / "rabbitmq.md").read_text()
    (patterns,) = [line.split("'")[1::2] for line in page.splitlines() if "set_permissions" in line]
    broker = brokers(url=url(rabbit_node, vhost, "ann:secret"))
    rabbit_node.let_in("ann", "secret", vhost, *patterns)

    one = message()
    await broker.publish_many([one, message()])
    await broker.publish(message(), delay=0.02)
    async with worker(broker) as consumer:
        first, *others = await receive(consumer, 3)
        await consumer.isolate(first)
        await settle(consumer, others, Done(None))
        await settle(consumer, [first], Dead(OOPS))
    assert await broker.replay_from_dlq(one.id)
    assert await broker.purge_queue() == 1
    assert await broker.timetable().pause(Entry("nightly", "default", "every 60 s"))

    rabbit_node.let_in("ann", "secret", vhost, "^nothing$", "^nothing$", "^nothing$")
    with pytest.raises(BrokerRefused, match="check the user's permissions"):
        await brokers(url=url(rabbit_node, vhost, "ann:secret")).publish(message())


@contextmanager
def largest(node, size):
    """*node* takes no message of more than *size* bytes from whoever opens a channel now."""
    before = node.evaluate("application:get_env(rabbit, max_message_size, undefined).")
    node.evaluate(f"application:set_env(rabbit, max_message_size, {size}).")
    try:
        yield
    finally:
        node.evaluate(f"application:set_env(rabbit, max_message_size, {before}).")


@pytest.mark.aio_pika
async def test_a_message_that_is_too_large_for_the_server_is_refused_and_nothing_else(brokers, rabbit_node):
    with largest(rabbit_node, 100_000):
        broker, other = brokers(), brokers()
        await broker.publish(message())
        with pytest.raises(PayloadError, match="larger than configured max size 100000; raise max_message_size"):
            await broker.publish(message(args=["x" * 200_000]))
        with pytest.raises(PublishUnknown, match="larger than configured max size"):
            await other.publish_many([message(args=["x" * 200_000]), message()])
        for one in (broker, other):
            with pytest.raises(PayloadError, match="takes 100000 bytes at most, this message has 200"):
                await one.publish_many([message(), message(args=["x" * 200_000])])
        await broker.publish(message())
        assert (await broker.get_queue_sizes()).ready == 2


async def test_what_became_too_large_for_the_server_is_not_lost_and_holds_up_nothing(brokers, rabbit_node):
    large, small, doomed = message(args=["x" * 200_000]), message("small"), message("doomed", args=["x" * 150_000])
    await brokers().publish_many([large, small, doomed])

    with largest(rabbit_node, 100_000):
        broker = brokers()
        async with worker(broker) as consumer:
            held = await receive(consumer, 3)
            outcomes = [RetryIn(0, large, OOPS), RetryIn(0, small, OOPS), Dead(OOPS)]
            settlements = [Settlement(one, outcome) for one, outcome in zip(held, outcomes, strict=True)]
            assert await eventually(lambda: consumer.settle(settlements)) == [False, True, False]
            (again,) = await receive(consumer, 1)
            assert again.message.name == "small"
            assert await settle(consumer, [again], Done(None)) == [True]
        # Whoever is given them now cannot put them back with a death on their count, and goes on all the same.
        async with worker(broker) as consumer:
            await broker.publish(message("next"))
            (found,) = await receive(consumer, 1)
            assert found.message.name == "next"
            await settle(consumer, [found], Done(None))

    found = await finish_all(brokers(), expected=2)
    assert {one.message.id for one in found} == {large.id, doomed.id}


async def test_a_message_above_our_own_limit_is_refused_before_anything_is_sent(brokers):
    broker = brokers(max_message_size=1000)

    with pytest.raises(PayloadError, match=r"has 1\d\d\d bytes, broker.rabbitmq.max_message_size allows 1000"):
        await broker.publish(message(args=["x" * 1000]))
    with pytest.raises(PayloadError, match="max_message_size allows 1000"):
        await broker.publish_many([message(), message(args=["x" * 1000])])

    assert broker._ends.take() is None
    await broker.publish(message(args=["x" * 700]))
    assert (await broker.get_queue_sizes()).ready == 1


async def test_a_full_queue_loses_nothing_that_was_in_it_before(brokers):
    broker = brokers(queue_max_length=1)
    delayed, released, retried = message("delayed"), message("released"), message("retried")

    async with worker(broker) as consumer:
        held = []
        for one in (released, retried):
            await broker.publish(one)
            held += await receive(consumer, 1)
        with trio.move_on_after(0.01):
            await consumer.receive(1)
        await broker.publish(delayed, delay=0.1)
        await broker.publish(message("first"))
        with pytest.raises(QueueFull):
            await broker.publish(message("second"))
        by_name = {one.message.name: one for one in held}
        await settle(consumer, [by_name["released"]], Release("stopping"))
        await settle(consumer, [by_name["retried"]], RetryIn(0, retried, OOPS))

    with trio.fail_after(5):
        while (await broker.get_queue_sizes()).ready < 4:
            await trio.sleep(0.01)
    found = {one.message.name for one in await finish_all(broker, expected=4)}
    assert found == {"delayed", "released", "retried", "first"}


async def test_the_longest_delay_is_one_that_the_server_takes(broker):
    await broker.publish(message(), delay=MAX_DELAY)
    await broker.publish(message(), delay=90 * 86400)

    assert (await broker.get_queue_sizes()).delayed == 2
    assert await broker.purge_queue() == 2
