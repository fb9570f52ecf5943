"""Delays: never early, in order, by the broker's clock; an earlier message wakes whoever waits for the next (M9)."""

import math
from datetime import UTC, datetime, timedelta

import pytest
import trio
from msgspec.structs import replace

from chicory.outcome import Done, RetryIn
from chicory.types import QueueSizes
from tests.contract.harness import OOPS, finish_all, message, nothing_comes, promoted, receive, settle, worker


async def keep(broker, queues=("default",)):
    """A scheduler reduced to promotion."""
    keeping = broker.keeper(queues)
    if keeping is None:
        return
    async with keeping as keeper:
        while True:
            wait = await keeper.promote()
            with trio.move_on_after(math.inf if wait is None else wait):
                await keeper.changed()


async def test_m9_a_delayed_message_waits_and_is_not_early(broker):
    async with worker(broker) as consumer, trio.open_nursery() as nursery:
        nursery.start_soon(keep, broker)
        began = trio.current_time()
        await broker.publish(message(), delay=0.3)
        assert await broker.get_queue_sizes() == QueueSizes(ready=0, delayed=1, delivered=0, dead=0)

        deliveries = await receive(consumer, 1)

        # A millisecond for the difference between two clocks that both run true.
        assert trio.current_time() - began >= 0.299
        await settle(consumer, deliveries, Done(None))
        nursery.cancel_scope.cancel()


@pytest.mark.needs("keeper")
async def test_m9_nothing_comes_before_it_is_promoted_and_nothing_is_promoted_early(broker):
    await broker.publish(message(), delay=30)

    wait = await promoted(broker)

    assert wait is not None
    assert 29 < wait <= 30
    async with worker(broker) as consumer:
        assert await nothing_comes(consumer, 0.05)
    assert (await broker.get_queue_sizes()).delayed == 1


@pytest.mark.needs("keeper")
async def test_m9_an_eta_delays_too_and_delay_wins_over_it(broker):
    later = datetime.now(UTC) + timedelta(hours=1)
    await broker.publish(message(eta=later))
    await broker.publish_many([message(eta=later), message()])
    await broker.publish(message(eta=later), delay=0)

    assert await broker.get_queue_sizes() == QueueSizes(ready=2, delayed=2, delivered=0, dead=0)
    wait = await promoted(broker)
    assert wait is not None
    assert 3500 < wait <= 3601


@pytest.mark.needs("keeper")
async def test_a_naive_eta_is_utc(broker):
    await broker.publish(message(eta=datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=100)))

    wait = await promoted(broker)

    assert wait is not None
    assert 98 < wait <= 101


async def test_m9_messages_come_in_the_order_they_are_due(broker):
    sent = {}
    for delay in (0.25, 0.05, 0.2, 0.1, 0.15):
        one = message()
        sent[one.id] = delay
        await broker.publish(one, delay=delay)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, broker)
        found = await finish_all(broker, expected=5)
        nursery.cancel_scope.cancel()

    assert [sent[one.message.id] for one in found] == sorted(sent.values())


async def test_an_earlier_message_wakes_the_keeper(broker):
    await broker.publish(message("late"), delay=60)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, broker)
        await trio.sleep(0.05)
        await broker.publish(message("early"), delay=0.1)
        (found,) = await finish_all(broker, expected=1)
        nursery.cancel_scope.cancel()

    assert found.message.name == "early"


@pytest.mark.needs("keeper")
async def test_a_message_between_looking_and_waiting_wakes_the_keeper(broker):
    async with broker.keeper(["default"]) as keeper:
        assert await keeper.promote() is None
        await broker.publish(message(), delay=60)

        with trio.fail_after(5):
            await keeper.changed()


async def test_a_retry_wakes_the_keeper(broker):
    one = message()
    await broker.publish(one)

    async with worker(broker) as consumer, trio.open_nursery() as nursery:
        nursery.start_soon(keep, broker)
        await trio.sleep(0.05)
        began = trio.current_time()
        await settle(consumer, await receive(consumer, 1), RetryIn(0.1, replace(one, retries=1), OOPS))
        (again,) = await receive(consumer, 1)

        assert trio.current_time() - began >= 0.099
        assert again.message.retries == 1
        await settle(consumer, [again], Done(None))
        nursery.cancel_scope.cancel()


@pytest.mark.needs("keeper")
async def test_promotion_takes_at_most_its_limit(broker):
    await broker.publish_many([message(eta=datetime.now(UTC) + timedelta(seconds=0.1)) for _ in range(10)])
    await trio.sleep(0.15)

    async with broker.keeper(["default"]) as keeper:
        assert await keeper.promote(4) == 0
        assert await broker.get_queue_sizes() == QueueSizes(ready=4, delayed=6, delivered=0, dead=0)
        assert await keeper.promote(6) is None

    assert len(await finish_all(broker, expected=10)) == 10


async def test_many_keepers_promote_each_message_once(broker):
    sent = [message(eta=datetime.now(UTC) + timedelta(seconds=0.05)) for _ in range(60)]
    await broker.publish_many(sent)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(keep, broker)
        found = await finish_all(broker, expected=60)
        nursery.cancel_scope.cancel()

    assert sorted(one.message.id for one in found) == sorted(one.id for one in sent)
    assert await broker.get_queue_sizes() == QueueSizes(ready=0, delayed=0, delivered=0, dead=0)


@pytest.mark.needs("keeper")
async def test_a_keeper_of_two_queues_minds_both(broker):
    await broker.publish(message(), delay=50)
    await broker.publish(message(queue="other"), delay=10)

    async with broker.keeper(["default", "other"]) as keeper:
        wait = await keeper.promote()

    assert wait is not None
    assert 9 < wait <= 10


@pytest.mark.needs("priorities")
async def test_the_highest_priority_goes_first(make):
    broker = make(max_priority=5).broker
    for priority in (0, 5, None, 2, 5):
        await broker.publish(message(priority=priority))
    found = []

    async with worker(broker) as consumer:
        for _ in range(5):
            found += await consumer.receive(1)
        await settle(consumer, found, Done(None))

    assert [one.message.priority or 0 for one in found] == [5, 5, 2, 0, 0]


@pytest.mark.needs("priorities")
async def test_a_delayed_or_retried_message_keeps_its_priority(make):
    broker = make(max_priority=3).broker
    urgent = message(priority=3)
    await broker.publish(urgent)

    async with worker(broker) as consumer:
        deliveries = await receive(consumer, 1)
        await broker.publish_many([message(), message()])
        await settle(consumer, deliveries, RetryIn(0.05, replace(urgent, retries=1), OOPS))
        await trio.sleep(0.06)
        await promoted(broker)
        found = []
        for _ in range(3):
            found += await consumer.receive(1)
        await settle(consumer, found, Done(None))

    assert [one.message.priority for one in found] == [3, None, None]


@pytest.mark.needs("priorities")
@pytest.mark.parametrize("priority", [-3, 99])
async def test_a_priority_out_of_range_counts_as_the_nearest(make, priority):
    broker = make(max_priority=2).broker

    await broker.publish(message(priority=priority))

    assert [one.message.priority for one in await finish_all(broker, expected=1)] == [priority]
