"""What is said of a RabbitMQ server."""

import pytest
import trio
import trio.testing

from chicory.brokers.rabbitmq.diagnosis import Symptoms, diagnose
from chicory.config import RabbitMQBrokerConfig
from chicory.outcome import Done
from chicory.types import Gravity, TaskMessage
from tests.contract.harness import receive, settle, worker


async def test_a_healthy_node_is_told_to_be_so(brokers):
    found = await brokers().examine()

    assert {one.gravity for one in found} == {Gravity.OK, Gravity.NOTICE}
    assert found[0].what.startswith("RabbitMQ 3.")


async def test_an_alarm_is_seen(brokers, rabbit_node):
    broker = brokers()
    rabbit_node.set_memory_limit(0)
    try:
        found = await broker.examine()
    finally:
        rabbit_node.set_memory_limit(0.4)

    (alarm,) = [one for one in found if one.gravity is Gravity.ERROR]
    assert "takes no messages" in alarm.what


@pytest.mark.parametrize(
    ("gravity", "what", "settings"),
    [
        ("warning", "not durable", {"durable": False}),
        ("ok", "on most of the queue's nodes", {"queue_type": "quorum"}),
        ("notice", "on one node", {}),
        ("notice", "believed to be 60 s", {"consumer_timeout": 60.0}),
    ],
)
def test_what_the_settings_mean_is_named(gravity, what, settings):
    (found,) = [
        one for one in diagnose(Symptoms(product="RabbitMQ 3.13"), RabbitMQBrokerConfig(**settings)) if what in one.what
    ]

    assert found.gravity == gravity


def test_a_line_that_others_may_read_is_a_warning():
    found = diagnose(Symptoms(product="RabbitMQ 4.0", exposed=True), RabbitMQBrokerConfig())

    assert [one.remedy for one in found if one.gravity is Gravity.WARNING] == [
        "write amqps:// where the server speaks TLS"
    ]


async def test_a_worker_that_is_to_connect_anew_keeps_what_it_holds_and_goes_on(brokers):
    broker = brokers()
    async with worker(broker) as consumer:
        await broker.publish(TaskMessage(name="held"))
        (held,) = await receive(consumer, 1)

        async with trio.open_nursery() as nursery:
            found = []

            async def wait():
                found.extend(await receive(consumer, 1))

            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            consumer.reconnect()
            await broker.publish(TaskMessage(name="next"))

        assert [one.message.name for one in found] == ["next"]
        assert await settle(consumer, [held, *found], Done(None)) == [True, True]
