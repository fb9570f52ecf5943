"""At most once: acknowledged before the run, so nothing is ever run twice (M11)."""

import pytest

from chicory.outcome import Dead, Done, Release
from chicory.types import QueueSizes, TaskState
from tests.contract.harness import OOPS, finish_all, message, receive, settle, taken_back, unique_name, worker

NOTHING = QueueSizes(ready=0, delayed=0, delivered=0, dead=0)


async def test_m11_an_acknowledged_delivery_is_out_of_the_queue_and_may_still_be_settled(broker):
    one = message()
    await broker.publish(one)

    async with worker(broker) as consumer:
        (acked,) = await consumer.acknowledge(await receive(consumer, 1))
        assert acked.acked
        assert acked.message == one
        assert await broker.get_queue_sizes() == NOTHING

        assert await settle(consumer, [acked], Done(42)) == [True]

    assert await broker.get_queue_sizes() == NOTHING


@pytest.mark.needs("joining")
async def test_m11_an_acknowledged_delivery_may_still_store_a_result(broker, backend):
    one = message()
    await broker.publish(one)

    async with worker(broker) as consumer:
        acked = await consumer.acknowledge(await receive(consumer, 1))
        assert (await backend.fetch(one.id)).state is TaskState.PENDING
        assert await settle(consumer, acked, Done(42)) == [True]

    assert (await backend.fetch(one.id)).value == 42


async def test_m11_what_a_dead_worker_had_acknowledged_is_never_run_again(broker):
    await broker.publish(message())

    async with worker(broker, name=(name := unique_name())) as doomed:
        acked = await doomed.acknowledge(await receive(doomed, 1))
        await taken_back(broker, 0, dead=name)
        assert await broker.get_queue_sizes() == NOTHING
        # It was not dead after all: its result is the only one there can be.
        assert await settle(doomed, acked, Done(None)) == [True]


async def test_m11_a_delivery_that_was_taken_back_cannot_be_acknowledged(broker):
    await broker.publish(message())

    async with worker(broker, name=(name := unique_name())) as late:
        deliveries = await receive(late, 1)
        await taken_back(broker, 1, dead=name)

        assert list(await late.acknowledge(deliveries)) == [None]

    assert len(await finish_all(broker, expected=1)) == 1


async def test_m11_acknowledging_twice_acknowledges_once(broker):
    await broker.publish(message())

    async with worker(broker) as consumer:
        deliveries = await receive(consumer, 1)
        first = await consumer.acknowledge(deliveries)
        assert list(await consumer.acknowledge(deliveries)) == [None]
        await settle(consumer, first, Done(None))


async def test_m11_a_task_that_failed_is_kept_as_a_dead_letter(broker):
    one = message()
    await broker.publish(one)

    async with worker(broker) as consumer:
        acked = await consumer.acknowledge(await receive(consumer, 1))
        assert await settle(consumer, acked, Dead(OOPS)) == [True]

    assert [letter.original_message for letter in await broker.get_dlq_messages()] == [one]


@pytest.mark.needs("joining")
async def test_m11_a_failure_is_stored(broker, backend):
    one = message()
    await broker.publish(one)

    async with worker(broker) as consumer:
        await settle(consumer, await consumer.acknowledge(await receive(consumer, 1)), Dead(OOPS))

    assert (await backend.fetch(one.id)).failure == OOPS


async def test_m11_a_batch_may_hold_both_kinds(broker):
    await broker.publish_many([message(), message(), message()])

    async with worker(broker) as consumer:
        first, second, third = await receive(consumer, 3)
        (acked,) = await consumer.acknowledge([second])
        assert await settle(consumer, [acked, third], Done(None)) == [True, True]
        assert await settle(consumer, [first], Release("stopping")) == [True]

    assert len(await finish_all(broker, expected=1)) == 1
