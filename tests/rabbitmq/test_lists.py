"""The lists that belong to all queues: of cancelled tasks, and of workers."""

import logging
import os

import pytest
import trio

from chicory import BackendType, BrokerType, Chicory, TaskState
from chicory.brokers.base import Settlement
from chicory.brokers.rabbitmq import cancellations
from chicory.brokers.rabbitmq.topology import Lists
from chicory.brokers.rabbitmq.turn import taken
from chicory.config import BackendConfig, BrokerConfig, ChicoryConfig, RabbitMQBrokerConfig
from chicory.errors import BrokerRefused
from chicory.ids import new_id
from chicory.links import amqp_methods
from chicory.links.amqp_frames import Outgoing
from chicory.outcome import Done, RetryIn
from chicory.testing import running_worker
from tests.contract.harness import OOPS, message, receive, settle, worker

LISTS = Lists(RabbitMQBrokerConfig())


async def until(fact):
    with trio.fail_after(10):
        while not await fact():
            await trio.sleep(0.01)


async def noted(broker):
    """How much is on the list of cancelled tasks."""
    async with taken(broker._ends.current()._turns, broker.config, LISTS.cancelled) as turn:
        return len(turn.found)


@pytest.mark.aio_pika
async def test_whoever_begins_while_tasks_are_cancelled_misses_none(brokers):
    cancelling, working = brokers(), brokers()
    ids, known = [new_id() for _ in range(60)], []

    async def join():
        async with worker(working) as consumer:
            with trio.fail_after(20):
                while set(consumer.cancelled) != set(ids):
                    await consumer.heard()
        known.append(consumer)

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for number, task_id in enumerate(ids):
                if number % 6 == 0:
                    nursery.start_soon(join)
                await cancelling.cancel(task_id)

    assert len(known) == 10


async def test_of_what_was_settled_nothing_is_left_and_nobody_remembers_it(brokers, monkeypatch):
    monkeypatch.setattr(cancellations, "_LITTER", 1)
    broker = brokers()
    sent, waiting = [message() for _ in range(3)], message(queue="other")
    await broker.publish_many([*sent, waiting])
    for one in (*sent, waiting):
        await broker.cancel(one.id)
    assert await noted(broker) == 4

    async with worker(broker) as consumer, worker(broker, "other") as other:
        assert len(consumer.cancelled) == len(other.cancelled) == 4
        assert all(await settle(consumer, await receive(consumer, 3), Done(None)))

        async def tidy():
            return set(other.cancelled) == {waiting.id} and await noted(broker) == 1

        await until(tidy)
        assert set(consumer.cancelled) == {waiting.id}
    await broker.purge_queue("other")


async def test_what_was_noted_for_long_enough_is_forgotten(broker, monkeypatch):
    old, new = new_id(), new_id()
    with monkeypatch.context() as patch:
        patch.setattr(cancellations, "_KEPT", -1.0)
        await broker.cancel(old)
    await broker.cancel(new)

    async with worker(broker) as consumer:
        assert set(consumer.cancelled) == {new}

    assert await noted(broker) == 1


async def test_a_retry_that_was_sent_before_the_cancelling_was_heard_is_cancelled_when_it_comes(broker):
    one = message()
    await broker.publish(one)
    async with worker(broker) as consumer:
        deliveries = await receive(consumer, 1)
        # As after a settling that was broken off: its copy is there.
        settlement = Settlement(deliveries[0], RetryIn(0.0, one, OOPS))
        await consumer._outbox.send(consumer._parcels(settlement), optional=frozenset())
        await broker.cancel(one.id)

        assert await consumer.settle([settlement]) == [True]
        with trio.fail_after(10):
            while one.id not in consumer.cancelled:
                await trio.sleep(0.01)
        (again,) = await receive(consumer, 1)
        assert again.message.id in consumer.cancelled
        assert await settle(consumer, [again], Done(None)) == [True]

    counters = await broker.counters()
    assert (counters["retried"], counters["failed"], counters["done"]) == (1, 1, 0)


@pytest.mark.parametrize("what", ["queue", "exchange", "list"])
async def test_what_somebody_has_deleted_is_declared_again(broker, rabbit_node, vhost, what):
    async with worker(broker) as consumer:
        match what:
            case "queue":
                rabbit_node.delete_queue(vhost, consumer._cancellations.queue)
            case "exchange":
                name = f'rabbit_misc:r(<<"{vhost}">>, exchange, <<"{LISTS.news}">>)'
                rabbit_node.evaluate(f'rabbit_exchange:delete({name}, false, <<"tests">>).')
            case "list":
                rabbit_node.delete_queue(vhost, LISTS.cancelled.name)
        await broker.publish(message())
        assert await settle(consumer, await receive(consumer, 1), Done(None)) == [True]

        if what == "exchange":
            # Its bindings have gone with it, and nobody tells who listened: that takes a new connection.
            await broker.cancel("x")
        else:
            heard = set()

            async def listen():
                while "x" not in heard:
                    heard.update(await consumer.heard())

            with trio.fail_after(10):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(listen)
                    await broker.cancel("x")
    async with worker(broker) as later:
        assert set(later.cancelled) == {"x"}


async def test_a_list_that_somebody_holds_keeps_nobody_from_work(brokers, caplog):
    broker, holding = brokers(connect_timeout=0.5), brokers()
    await broker.cancel("x")
    await broker.publish(message())
    async with taken(holding._ends.current()._turns, holding.config, LISTS.cancelled):
        with caplog.at_level(logging.WARNING, "chicory.rabbitmq"):
            async with worker(broker) as consumer:
                assert await settle(consumer, await receive(consumer, 1), Done(None)) == [True]
                assert "cannot tell yet which tasks are cancelled" in caplog.text
                assert not consumer.cancelled
                async with trio.open_nursery() as nursery:
                    heard = []

                    async def listen():
                        heard.append(await consumer.heard())

                    nursery.start_soon(listen)
                    await holding.aclose()
                assert heard == [{"x"}]


@pytest.mark.aio_pika
async def test_a_worker_is_listed_for_as_long_as_its_connection_stands(broker):
    app = Chicory(broker)

    async def listed():
        return [one.name for one in await app.broker.get_active_workers()]

    async def only_one():
        return await listed() == [staying.name]

    with trio.fail_after(20):
        async with running_worker(app, name="staying", heartbeat_interval=1) as staying:
            async with running_worker(app, name="leaving", heartbeat_interval=1) as leaving:

                async def two():
                    return len(await listed()) == 2

                async def both():
                    return await listed() == [leaving.name, staying.name]

                await until(both)
                (doomed,) = [one for one in broker._consumers if one.name == leaving.name]
                doomed._line.close()
                await until(only_one)
                # It has joined anew, under another name.
                await until(two)
            await until(only_one)

        # What it wrote meanwhile is off the list, but for the last.
        async with taken(broker._ends.current()._turns, broker.config, LISTS.workers) as turn:
            assert len(turn.found) <= 2


async def test_what_is_not_a_worker_is_no_trouble_to_the_list(broker):
    async with worker(broker), broker._channel() as channel:
        await channel.call(amqp_methods.confirm(), timeout=5)
        await channel.publish([Outgoing("", LISTS.workers.name, "", b"no worker")]).done.wait()

    assert await broker.get_active_workers() == []


async def test_by_rpc_who_sent_a_task_knows_at_once_that_it_is_cancelled(rabbit_node, vhost):
    config = ChicoryConfig(
        broker=BrokerConfig(type=BrokerType.RABBITMQ, rabbitmq=RabbitMQBrokerConfig(url=rabbit_node.url(vhost))),
        backend=BackendConfig(type=BackendType.RPC),
    )
    app = Chicory(config=config)

    @app.task(name="nap")
    async def nap(seconds: float) -> int:
        await trio.sleep(seconds)
        return os.getpid()

    try:
        with trio.fail_after(20):
            queued, done, running = await nap.delay(0), await nap.delay(0), await nap.delay(1000)
            assert await queued.cancel()
            assert await queued.cancel()
            assert await queued.state() is TaskState.CANCELLED
            async with running_worker(app, shutdown_timeout=1.0) as at_work:
                assert await done.get() == os.getpid()
                await at_work.busy()
                assert await running.cancel()
                assert (await running.wait()).state is TaskState.CANCELLED
                await at_work.settled(3)
        assert (await app.broker.counters())["failed"] == 2
    finally:
        await app.aclose()


async def test_who_may_not_cancel_is_told(rabbit_node, vhost, brokers):
    rabbit_node.let_in("reader", "word", vhost, "^nothing", "^nothing", ".*")
    broker = brokers(url=rabbit_node.url(vhost).replace("guest:guest", "reader:word"))

    with pytest.raises(BrokerRefused, match="permissions"):
        await broker.cancel("x")
