"""Publishing: once it returns the broker has the message, whole, in order, and only once (M1, M2, M10)."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
import trio

from chicory.brokers.base import Settlement
from chicory.errors import DelayError, PayloadError, QueueFull
from chicory.outcome import Done, Release
from chicory.types import DeliveryMode, QueueSizes
from chicory.wire import unpack
from tests.contract.harness import books, finish_all, message, nothing_comes, receive, settle, worker


async def test_m1_a_published_message_is_ready_then_delivered_then_done(broker):
    await broker.publish(message())
    assert await broker.get_queue_sizes() == QueueSizes(ready=1, delayed=0, delivered=0, dead=0)

    async with worker(broker) as consumer:
        deliveries = await receive(consumer, 1)
        assert await broker.get_queue_sizes() == QueueSizes(ready=0, delayed=0, delivered=1, dead=0)

        assert await settle(consumer, deliveries, Done(None)) == [True]
        assert await broker.get_queue_sizes() == QueueSizes(ready=0, delayed=0, delivered=0, dead=0)

    assert (await books(broker))["done"] == 1


async def test_a_message_arrives_as_it_was_sent(broker):
    sent = message(
        args=[1, "zwei", None, 3.5, [True, {"k": b"\x00\xff"}]],
        kwargs={"at": datetime(2026, 2, 28, tzinfo=UTC), "id": UUID(int=7), "price": Decimal("1.10"), "x": {"$y": 1}},
        retries=2,
        priority=1,
        timeout=2.5,
        expires=datetime(2099, 1, 1, tzinfo=UTC),
        headers={"trace": "1"},
        reply_to="me",
        delivery_mode=DeliveryMode.AT_MOST_ONCE,
    )

    await broker.publish(sent)

    (delivery,) = await finish_all(broker, expected=1)
    assert delivery.message == sent
    assert (delivery.queue, delivery.count, delivery.acked) == ("default", 1, False)
    # Whatever a task makes of its arguments, what they were is still there.
    assert unpack(delivery.raw) == sent


async def test_messages_of_one_publisher_come_in_order(broker):
    sent = [message(args=[number]) for number in range(300)]

    await broker.publish_many(sent[:150])
    for one in sent[150:160]:
        await broker.publish(one)
    await broker.publish_many(sent[160:])

    assert [one.message.id for one in await finish_all(broker, expected=300)] == [one.id for one in sent]


async def test_publishing_nothing_is_allowed(broker):
    await broker.publish_many([])

    assert (await broker.get_queue_sizes()).ready == 0


async def test_the_queue_argument_wins_over_the_message(broker):
    await broker.publish(message(queue="default"), queue="other")
    await broker.publish_many([message(queue="other"), message()], queue="other")

    assert (await broker.get_queue_sizes("default")).ready == 0
    found = await finish_all(broker, "other", expected=3)
    assert {(one.queue, one.message.queue) for one in found} == {("other", "other")}


async def test_a_worker_hears_of_a_message_that_comes_later(broker):
    found = []

    async with worker(broker, "default", "other") as consumer, trio.open_nursery() as nursery:

        async def listen():
            found.extend(await receive(consumer, 2))
            await settle(consumer, found, Done(None))

        nursery.start_soon(listen)
        await trio.sleep(0.02)
        await broker.publish(message("first"))
        await trio.sleep(0.02)
        await broker.publish(message("second", queue="other"))

    assert [one.message.name for one in found] == ["first", "second"]


@pytest.mark.needs("deduplication")
async def test_m2_repeating_a_publish_with_the_same_id_does_nothing(broker):
    one = message()

    await broker.publish(one)
    await broker.publish(one)
    await broker.publish_many([one, one])

    assert [found.message.id for found in await finish_all(broker, expected=1)] == [one.id]
    # Also after it has finished: a repeat may come late.
    await broker.publish(one)
    assert (await broker.get_queue_sizes()).ready == 0
    assert (await books(broker))["published"] == 1


@pytest.mark.needs("deduplication")
async def test_m2_a_repeat_during_the_run_or_while_delayed_does_nothing(broker):
    running, later = message(), message()
    await broker.publish(running)
    await broker.publish(later, delay=60)

    async with worker(broker) as consumer:
        deliveries = await receive(consumer, 1)
        await broker.publish(running)
        await broker.publish(later)
        assert await nothing_comes(consumer)
        await settle(consumer, deliveries, Done(None))

    assert (await broker.get_queue_sizes()).delayed == 1


async def test_many_publishers_at_once_lose_nothing(broker):
    sent = [message() for _ in range(60)]

    async with trio.open_nursery() as nursery:
        for one in sent:
            nursery.start_soon(broker.publish, one)

    assert {one.message.id for one in await finish_all(broker, expected=60)} == {one.id for one in sent}


@pytest.mark.needs("counting what is held")
async def test_m10_a_full_queue_refuses_and_keeps_what_it_has(make):
    broker = make(max_stream_length=3).broker
    sent = [message() for _ in range(3)]
    await broker.publish_many(sent)

    with pytest.raises(QueueFull) as full:
        await broker.publish(message())
    assert (full.value.queue, full.value.limit) == ("default", 3)

    async with worker(broker) as consumer:
        deliveries = await receive(consumer, 3)
        # What is being worked on is not done yet.
        with pytest.raises(QueueFull):
            await broker.publish(message())
        await settle(consumer, deliveries, Done(None))
    await broker.publish(message())
    assert [one.message.id for one in deliveries] == [one.id for one in sent]


@pytest.mark.needs("an exact limit")
async def test_m10_publish_many_says_how_many_were_taken_before_the_queue_was_full(make):
    broker = make(max_stream_length=5).broker
    sent = [message() for _ in range(8)]

    with pytest.raises(QueueFull) as full:
        await broker.publish_many(sent)

    assert full.value.published == 5
    assert [one.message.id for one in await finish_all(broker, expected=5)] == [one.id for one in sent[:5]]
    await broker.publish_many(sent[full.value.published :])
    assert (await broker.get_queue_sizes()).ready == 3


async def test_m10_a_full_queue_takes_back_what_it_gave_out(make):
    broker = make(max_stream_length=1).broker
    await broker.publish(message())

    async with worker(broker) as consumer:
        deliveries = await receive(consumer, 1)
        assert await settle(consumer, deliveries, Release("stopping")) == [True]

    assert (await broker.get_queue_sizes()).ready == 1


@pytest.mark.parametrize("delay", [-1, -0.001, float("nan"), float("inf"), 1e300])
async def test_an_impossible_delay_is_refused(broker, delay):
    with pytest.raises(DelayError, match="out of range"):
        await broker.publish(message(), delay=delay)

    assert (await books(broker))["published"] == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"args": [object()]},
        {"args": [float("nan")]},
        {"args": ["x" * 300_000]},
        {"id": 'with "quotes"'},
        {"name": "not a name"},
        {"queue": "no queue:{tag}"},
    ],
)
async def test_what_cannot_travel_is_refused_before_it_is_sent(broker, fields):
    bad = message(**{"name": "work", **fields})

    with pytest.raises(PayloadError):
        await broker.publish(bad)
    with pytest.raises(PayloadError):
        await broker.publish_many([message(), bad])

    assert (await books(broker))["published"] == 0


async def test_eta_in_the_past_is_now(broker):
    await broker.publish(message(eta=datetime.now(UTC) - timedelta(days=1)))

    assert (await broker.get_queue_sizes()).ready == 1


async def test_purging_a_queue_leaves_what_workers_hold(broker):
    await broker.publish_many([message() for _ in range(4)])
    await broker.publish(message(), delay=100)

    async with worker(broker) as consumer:
        deliveries = await receive(consumer, 1)
        assert await broker.purge_queue() == 4
        assert await broker.get_queue_sizes() == QueueSizes(ready=0, delayed=0, delivered=1, dead=0)
        assert await consumer.settle([Settlement(deliveries[0], Done(None))]) == [True]

    assert (await books(broker))["purged"] == 4
    assert await broker.purge_queue() == 0


async def test_ping_names_the_server(broker, kind):
    named = {
        "memory": "memory",
        "redis": "Redis 7.",
        "embedded": "Valkey",
        "rabbitmq": "RabbitMQ 3.",
        "aio-pika": "RabbitMQ 3.",
        "quorum": "RabbitMQ 3.",
    }

    assert (await broker.ping()).startswith(named[kind])


async def test_m13_the_books_name_every_road_from_the_start(broker):
    roads = "published done failed dead retried released reclaimed replayed deleted purged stale lost"

    totals = await broker.counters()

    assert {road: totals[road] for road in roads.split()} == dict.fromkeys(roads.split(), 0)
