"""What happens to RabbitMQ and to the way there: alarms, deleted queues, closed connections, restarts."""

import time

import pytest
import trio

from chicory.brokers.base import Settlement
from chicory.errors import BrokerBlocked, BrokerError, BrokerUnavailable, LeaseLost, PublishUnknown
from chicory.outcome import Dead, Done, RetryIn
from tests.contract.harness import OOPS, bury, finish_all, imbalance, message, receive, settle, unique_name, worker
from tests.rabbit import running_node
from tests.rabbitmq.persistence import eventually


@pytest.mark.aio_pika
async def test_an_alarm_blocks_publishers_and_no_worker(brokers, rabbit_node):
    broker = brokers(publish_timeout=0.5)
    await broker.publish_many([message() for _ in range(10)])

    async with worker(broker) as consumer:
        rabbit_node.set_memory_limit(0)
        try:
            refused = []
            while not refused or type(refused[-1]) is not BrokerBlocked:
                with pytest.raises((BrokerBlocked, PublishUnknown), match="takes no messages") as caught:
                    await broker.publish(message("late"))
                refused.append(caught.value)
            # The first made the server notice that it is published to; it is there when the alarm is over.
            assert [type(error) for error in refused] == [PublishUnknown, BrokerBlocked]

            assert await settle(consumer, await receive(consumer, 10), Done(None)) == [True] * 10
            assert await consumer.renew()
        finally:
            rabbit_node.set_memory_limit(0.4)

        await eventually(lambda: broker.publish(message("after")))
        found = await receive(consumer, 2)
        assert [one.message.name for one in found] == ["late", "after"]
        await settle(consumer, found, Done(None))


@pytest.mark.aio_pika
async def test_a_queue_that_is_deleted_is_declared_again_for_publishers(broker, rabbit_node, vhost):
    await broker.publish(message())

    rabbit_node.delete_queue(vhost, "chicory.queue.default")
    kept = [message(), message()]
    await broker.publish(kept[0])
    await broker.publish_many(kept[1:])

    assert [one.message.id for one in await finish_all(broker, expected=2)] == [one.id for one in kept]


async def test_a_queue_that_is_deleted_under_a_worker_is_declared_again(broker, rabbit_node, vhost):
    async with worker(broker) as consumer:
        await broker.publish(message())
        held = await receive(consumer, 1)
        async with trio.open_nursery() as nursery:

            async def work():
                found = await receive(consumer, 1)
                assert await settle(consumer, found, Done(None)) == [True]

            nursery.start_soon(work)
            rabbit_node.delete_queue(vhost, "chicory.queue.default")
            with trio.fail_after(5):
                await broker.publish(message())
        await settle(consumer, held, Done(None))


async def test_a_queue_that_was_deleted_while_nobody_received_takes_nothing_from_the_worker(broker, rabbit_node, vhost):
    async with worker(broker, "default", "other") as consumer:
        await broker.publish_many([message(), message(queue="other")])
        held = await receive(consumer, 2)
        with trio.move_on_after(0.01):
            await consumer.receive(1)

        rabbit_node.delete_queue(vhost, "chicory.queue.default")
        await broker.publish(message())

        found = await receive(consumer, 1)
        assert await settle(consumer, [*held, *found], Done(None)) == [True] * 3


@pytest.mark.aio_pika
async def test_a_deleted_level_of_delay_is_an_unknown_publish_and_then_declared_again(broker, rabbit_node, vhost):
    await broker.publish(message(), delay=0.02)
    await finish_all(broker, expected=1)

    rabbit_node.evaluate(
        f'rabbit_exchange:delete(rabbit_misc:r(<<"{vhost}">>, exchange, <<"chicory.delay.v1.default.1">>), false,'
        ' <<"tests">>).'
    )
    with pytest.raises(PublishUnknown):
        await broker.publish(message(), delay=0.02)
    await broker.publish(message(), delay=0.02)

    await finish_all(broker, expected=1)


@pytest.mark.aio_pika
async def test_closed_connections_lose_no_message_and_everybody_comes_back(broker, rabbit_node):
    sent = [message() for _ in range(60)]
    done = set()

    async def work():
        while len(done) < len(sent):
            try:
                async with worker(broker, limit=5) as consumer:
                    while len(done) < len(sent):
                        found = await consumer.receive(5)
                        held = await consumer.settle([settlement(one) for one in found])
                        done.update(one.message.id for one, ours in zip(found, held, strict=True) if ours)
            except (BrokerError, LeaseLost):
                await trio.sleep(0.01)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(work)
            for number, one in enumerate(sent):
                if number % 6 == 0:
                    rabbit_node.close_all_connections()
                await eventually(lambda one=one: broker.publish(one))

    assert done >= {one.id for one in sent}


def settlement(delivery):
    return Settlement(delivery, Done(None))


@pytest.mark.aio_pika
async def test_a_worker_whose_connection_is_closed_has_lost_what_it_held(broker, rabbit_node):
    await broker.publish_many([message() for _ in range(3)])

    async with worker(broker) as consumer:
        held = await receive(consumer, 3)
        rabbit_node.close_all_connections()
        with pytest.raises(LeaseLost):
            await consumer.receive(1)

        assert await consumer.renew() is False
        assert await settle(consumer, held, Done(None)) == [False] * 3

    found = await finish_all(broker, expected=3)
    assert {one.count for one in found} == {2}


async def test_innocents_are_not_charged_beyond_the_limit_by_closed_connections(brokers, rabbit_node):
    broker = brokers(most=3)
    await broker.publish(message())
    counts = []

    for _ in range(5):
        async with worker(broker) as consumer:
            counts += [one.count for one in await receive(consumer, 1)]
            # The copy may be here before the original is acknowledged.
            while (await broker.counters())["reclaimed"] < len(counts) - 1:
                await trio.sleep(0.005)
            await consumer.sync()
            rabbit_node.close_all_connections()
            with pytest.raises(LeaseLost):
                await consumer.receive(1)

    assert counts == [1, 2, 3, 3, 3]


async def test_what_was_prefetched_is_not_charged_for_a_death_of_before(brokers, rabbit_node):
    """A dead letter that killed a worker alone is replayed, and lies in workers that die of something else."""
    broker = brokers(most=2)
    one = message()
    await broker.publish(one)
    counts = []

    async def die(*, alone=False):
        async with worker(broker) as consumer:
            delivery = await begin(consumer)
            if alone:
                await consumer.isolate(delivery)
            consumer._line.close()

    async def begin(consumer):
        (delivery,) = await receive(consumer, 1)
        counts.append(delivery.count)
        # The copy may be here before the original is acknowledged.
        with trio.fail_after(5):
            while (await broker.counters())["reclaimed"] < sum(count > 1 for count in counts):
                await trio.sleep(0.005)
        await consumer.sync()
        return delivery

    await die()
    await die(alone=True)
    async with worker(broker) as consumer:
        await settle(consumer, [await begin(consumer)], Dead(OOPS))
    assert await broker.replay_from_dlq(one.id)
    for _ in range(4):
        await die()

    assert counts == [1, 2, 3, 1, 2, 2, 2]


async def test_dead_letters_are_all_there_in_order_however_often_they_are_looked_at(broker):
    from chicory.brokers.rabbitmq.mail import Parcel
    from chicory.links.amqp_frames import Outgoing

    names = broker._names_of("default")
    await bury(broker, *(message() for _ in range(20)))
    foreign = [Parcel(names, Outgoing("", names.dead, "", body)) for body in (b"", b"same", b"same", b"\xff", b"{}")]
    await broker._current_publisher().deliver(foreign)
    first = await broker.get_dlq_messages()

    for _ in range(50):
        assert await broker.get_dlq_messages() == first

    assert len({letter.message_id for letter in first}) == 25
    pages, start = [], ""
    while page := await broker.get_dlq_messages(count=3, start=start):
        pages += page
        start = page[-1].message_id
    assert pages == first
    assert await broker.delete_from_dlq(first[22].message_id)
    assert await broker.get_dlq_count() == 24


async def test_two_readers_of_dead_letters_wait_for_each_other(brokers):
    one, other = brokers(), brokers()
    await bury(one, *(message() for _ in range(10)))
    seen = []

    async def look(broker):
        for _ in range(10):
            seen.append(len(await broker.get_dlq_messages()))
            seen.append(await broker.get_dlq_count())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look, one)
        nursery.start_soon(look, other)

    assert seen == [10] * 40


async def test_a_long_delay_never_holds_up_a_short_one(broker):
    await broker.publish(message("hour"), delay=3600)
    due = {}
    for number in range(60):
        one = message(args=[number])
        due[one.id] = time.monotonic() + 0.2 + number * 0.03
        await broker.publish(one, delay=0.2 + number * 0.03)

    late = []
    async with worker(broker) as consumer:
        while len(late) < len(due):
            for one in await consumer.receive(10):
                late.append(time.monotonic() - due[one.message.id])
                await settle(consumer, [one], Done(None))

    assert min(late) > -0.001
    assert max(late) < 1.5
    assert (await broker.get_queue_sizes()).delayed == 1


async def test_a_delay_beyond_the_levels_is_waited_for_in_several_goes(broker, monkeypatch):
    monkeypatch.setattr("chicory.brokers.rabbitmq.topology.LONGEST", 4)
    began = trio.current_time()
    await broker.publish(message(), delay=0.3)

    (one,) = await finish_all(broker, expected=1)

    assert trio.current_time() - began >= 0.299
    assert one.count == 1
    assert await imbalance(broker, "default") == 0


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
async def test_what_was_confirmed_survives_a_killed_server_also_what_is_delayed(brokers, queue_type):
    with running_node() as node:
        broker = brokers(url=node.url(), queue_type=queue_type, publish_timeout=20.0)
        ready, later = [message() for _ in range(50)], [message("later") for _ in range(5)]
        await broker.publish_many(ready)
        began = trio.current_time()
        for one in later:
            await broker.publish(one, delay=8)
        async with worker(broker, name=unique_name()) as consumer:
            done = (await receive(consumer, 20))[:10]
            await settle(consumer, done, Done(None))
            await consumer.sync()
            await trio.to_thread.run_sync(node.restart)
            assert await consumer.renew() is False

        missing = {one.id for one in (*ready, *later)} - {one.message.id for one in done}
        await eventually(broker.ping)
        with trio.fail_after(25):
            async with worker(broker) as consumer:
                while missing:
                    found = await consumer.receive(50)
                    assert all(one.message.name == "work" or trio.current_time() - began > 7.99 for one in found)
                    await settle(consumer, found, Done(None))
                    missing -= {one.message.id for one in found}


async def test_an_alarm_does_not_keep_finished_tasks_from_being_acknowledged_beside_those_that_must_be_retried(
    broker, rabbit_node
):
    await broker.publish_many([message(args=[number]) for number in range(4)])

    async with worker(broker) as consumer:
        held = await receive(consumer, 4)
        outcomes = [Done(None), RetryIn(0, held[1].message, OOPS), Dead(OOPS), Done(None)]
        settlements = [Settlement(one, outcome) for one, outcome in zip(held, outcomes, strict=True)]
        rabbit_node.set_memory_limit(0)
        try:
            for _ in range(3):
                with pytest.raises(BrokerUnavailable, match="takes no messages"):
                    await consumer.settle(settlements)
                assert (await broker.counters())["done"] == 2
                assert consumer.delivered("default") == 2
        finally:
            rabbit_node.set_memory_limit(0.4)

        assert await eventually(lambda: consumer.settle(settlements)) == [True] * 4
        (again,) = await receive(consumer, 1)
        assert again.message == held[1].message
        assert await settle(consumer, [again], Done(None)) == [True]

    assert await broker.get_dlq_count() == 1
    assert await imbalance(broker, "default") == 0
