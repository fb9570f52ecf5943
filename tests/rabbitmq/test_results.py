"""Results by rpc: sent to whoever sent the task, read once, and there before the task is acknowledged."""

import pytest
import trio

from chicory import BackendType, BrokerType, Chicory, RemoteTaskError, RetryPolicy
from chicory.backends.rabbitmq import RpcBackend
from chicory.brokers.base import Settlement
from chicory.config import BrokerConfig, ChicoryConfig, RabbitMQBrokerConfig
from chicory.errors import ConfigError, QueueFull, ResultUnknown
from chicory.outcome import Dead, Done, RetryIn
from chicory.testing import running_worker
from chicory.types import TaskState
from tests.contract.harness import OOPS, message, receive, record, settle, worker
from tests.rabbitmq.persistence import eventually
from tests.rabbitmq.test_refusals import largest


@pytest.fixture
async def backend(brokers, broker):
    made = RpcBackend(broker.config, result_ttl=60)
    assert made.joins(broker)
    broker.join(made)
    yield made
    await made.aclose()


@pytest.mark.aio_pika
async def test_a_result_goes_to_the_one_who_sent_and_is_read_once(broker, backend):
    one = message()
    assert (await backend.fetch(one.id)).state is TaskState.UNKNOWN
    await broker.publish(one)
    assert (await backend.fetch(one.id)).state is TaskState.PENDING

    async with worker(broker) as consumer:
        delivered = await receive(consumer, 1)
        await settle(consumer, delivered, RetryIn(0, delivered[0].message, OOPS))
        again = await receive(consumer, 1)
        with trio.fail_after(5):
            while (await backend.fetch(one.id)).state is not TaskState.RETRY:
                await trio.sleep(0.005)
        await settle(consumer, again, Done({"answer": [42, b"raw"]}))

    with trio.fail_after(5):
        assert (await backend.wait(one.id)).value == {"answer": [42, b"raw"]}
    assert (await backend.fetch(one.id)).state is TaskState.UNKNOWN


async def test_all_who_wait_are_told_at_once(broker, backend):
    sent = [message() for _ in range(30)]
    got = []

    async def wait(task_id):
        got.append((await backend.wait(task_id)).failure)

    await broker.publish_many(sent)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for one in (*sent, *sent):
                nursery.start_soon(wait, one.id)
            async with worker(broker) as consumer:
                await settle(consumer, await receive(consumer, 30), Dead(OOPS))

    assert got == [OOPS] * 60


@pytest.mark.aio_pika
async def test_a_result_survives_a_closed_connection(broker, backend, rabbit_node):
    one = message()
    await broker.publish(one)

    async with worker(broker) as consumer:
        delivered = await receive(consumer, 1)
        backend.replies.line.close()
        await settle(consumer, delivered, Done(1))

    with trio.fail_after(10):
        assert (await backend.wait(one.id)).value == 1


async def test_a_result_that_nobody_waits_for_any_more_holds_up_no_task(broker, backend):
    await broker.publish_many([message(), message(reply_to="chicory.reply.gone"), message(reply_to="mine")])
    await backend.aclose()

    async with worker(broker) as consumer:
        assert await settle(consumer, await receive(consumer, 3), Done(1)) == [True] * 3


async def test_what_was_refused_is_not_waited_for(brokers):
    broker = brokers(queue_max_length=2)
    backend = RpcBackend(broker.config, result_ttl=60)
    broker.join(backend)
    sent = [message() for _ in range(4)]

    with pytest.raises(QueueFull):
        await broker.publish_many(sent)

    states = [(await backend.fetch(one.id)).state for one in sent]
    assert states == [TaskState.PENDING] * 2 + [TaskState.UNKNOWN] * 2
    await backend.aclose()


async def test_a_result_that_is_too_large_for_the_server_is_a_failure_that_says_so(broker, backend, rabbit_node):
    sent = [message("large"), message("small")]
    with largest(rabbit_node, 100_000):
        await broker.publish_many(sent)
        async with worker(broker) as consumer:
            held = await receive(consumer, 2)
            outcomes = [Done("x" * 200_000), Done(1)]
            settlements = [
                Settlement(one, outcome, record(outcome)) for one, outcome in zip(held, outcomes, strict=True)
            ]
            assert await eventually(lambda: consumer.settle(settlements)) == [True, True]

    with trio.fail_after(5):
        large, small = [await backend.wait(one.id) for one in sent]
    assert large.failure.type == "PayloadError"
    assert "more than RabbitMQ takes" in large.failure.message
    assert small.value == 1


async def test_garbage_among_the_results_is_passed_over(broker, backend):
    from chicory.brokers.rabbitmq.mail import Parcel
    from chicory.links.amqp_frames import Outgoing

    one = message()
    await broker.publish(one)
    garbage = [Outgoing("", backend.replies.queue, task_id, b"\xff") for task_id in (one.id, "", "another")]
    await broker._current_publisher().deliver([Parcel(broker._names_of("default"), bad) for bad in garbage])

    async with worker(broker) as consumer:
        await settle(consumer, await receive(consumer, 1), Done(1))

    with trio.fail_after(5):
        assert (await backend.wait(one.id)).value == 1


async def test_an_app_on_rabbitmq_alone(rabbit_node, vhost):
    config = ChicoryConfig(broker=BrokerConfig(rabbitmq=RabbitMQBrokerConfig(url=rabbit_node.url(vhost))))
    app = Chicory(BrokerType.RABBITMQ, BackendType.RPC, config)

    @app.task(name="double", retry_policy=RetryPolicy(max_retries=0))
    async def double(number: int) -> int:
        if number < 0:
            raise ValueError(number)
        return 2 * number

    assert app.joined
    async with app, running_worker(app):
        with trio.fail_after(20):
            results = [await double.delay(number) for number in range(20)]
            assert [await result.get() for result in results] == [2 * number for number in range(20)]
            with pytest.raises(ResultUnknown):
                await results[0].get()
            failing = await double.delay(-1)
            with pytest.raises(RemoteTaskError, match="ValueError"):
                await failing.get()


def test_rpc_needs_rabbitmq():
    with pytest.raises(ConfigError, match=r'set broker\.type = "rabbitmq"'):
        assert Chicory(BrokerType.REDIS, BackendType.RPC).backend
