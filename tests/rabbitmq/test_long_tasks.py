"""Tasks that take longer than RabbitMQ lets a consumer hold a message."""

from contextlib import contextmanager

import pytest
import trio

from chicory.outcome import Dead, Done, Release
from tests.contract.harness import OOPS, finish_all, imbalance, message, receive, settle, worker

LIMIT = 1.2


@contextmanager
def impatient(node):
    """*node* takes back what was held for LIMIT seconds, and looks often."""
    keys = {"consumer_timeout": int(LIMIT * 1000), "channel_tick_interval": 100}
    before = {key: node.evaluate(f"application:get_env(rabbit, {key}, undefined).") for key in keys}
    try:
        for key, value in keys.items():
            node.evaluate(f"application:set_env(rabbit, {key}, {value}).")
        yield
    finally:
        for key, value in before.items():
            node.evaluate(f"application:set_env(rabbit, {key}, {value}).")


@pytest.fixture
def broker(brokers, rabbit_node):
    with impatient(rabbit_node):
        yield brokers(consumer_timeout=LIMIT / 2)


async def test_without_renewal_it_is_taken_back(brokers, broker):
    plain = brokers(consumer_timeout=1800.0)
    await plain.publish(message())

    async with worker(plain) as consumer:
        await receive(consumer, 1)
        with trio.fail_after(10):
            while await consumer.renew():
                await trio.sleep(0.05)

    assert (await finish_all(broker, expected=1))[0].count == 2


async def test_a_message_is_held_for_as_long_as_its_task_takes(broker):
    sent = [message(args=[number]) for number in range(5)]
    await broker.publish_many(sent)

    async with worker(broker) as consumer:
        held = await receive(consumer, 5)
        began = trio.current_time()
        while trio.current_time() < began + 4 * LIMIT:
            assert await consumer.renew()
            await trio.sleep(0.05)
        outcomes = [Done(1), Dead(OOPS), Release("stopping"), Done(1), Done(1)]
        for one, outcome in zip(held, outcomes, strict=True):
            assert await settle(consumer, [one], outcome) == [True]
        (again,) = await receive(consumer, 1)
        assert (again.message, again.count) == (sent[2], 1)
        await settle(consumer, [again], Done(1))
        await consumer.sync()

    assert await imbalance(broker, "default") == 0
    assert await broker.get_dlq_count() == 1


async def test_what_a_dead_worker_had_renewed_goes_to_others_and_is_charged(broker, monkeypatch):
    monkeypatch.setattr("chicory.brokers.rabbitmq.renewal._COPY_MS", 500)
    await broker.publish(message())

    async with worker(broker) as doomed:
        await receive(doomed, 1)
        await trio.sleep(2 * LIMIT)
        assert await doomed.renew()
        doomed._line.close()

    (found,) = await finish_all(broker, expected=1)
    assert found.count == 2
