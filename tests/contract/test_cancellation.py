"""Cancelled wherever it waits, no operation loses a message, doubles one, or leaves one with nobody (M1, M2, M8)."""

import pytest
import trio

from chicory.outcome import Dead, Done, Release, RetryIn
from tests.contract.cancelling import cancelled_at, every_checkpoint
from tests.contract.harness import OOPS, books, bury, finish_all, message, promoted, receive, settle, taken_back, worker


async def received_after_all(consumer, count, held):
    """Receive until *count* are held, whichever way they come."""
    with trio.fail_after(20):
        while len(held) < count:
            with trio.move_on_after(0.2):
                held += await consumer.receive(count - len(held))
            held += await consumer.reconcile({one.receipt for one in held})


@pytest.mark.needs("deduplication")
async def test_m2_a_cancelled_publish_has_happened_once_or_not_at_all(broker):
    sent = []

    async def attempt(turn):
        sent.append(message())
        return await cancelled_at(turn, lambda: broker.publish(sent[-1]))

    turns = [turn async for turn in every_checkpoint(attempt)]
    # Repeating is safe, whatever became of the first.
    for one in sent:
        await broker.publish(one)

    found = await finish_all(broker, expected=len(sent))
    assert sorted(one.message.id for one in found) == sorted(one.id for one in sent)
    assert len(turns) > 1


@pytest.mark.needs("deduplication")
async def test_m2_a_cancelled_publish_many_can_be_repeated(broker):
    sent = []

    async def attempt(turn):
        batch = [message() for _ in range(3)]
        sent.extend(batch)
        return await cancelled_at(turn, lambda: broker.publish_many(batch))

    assert [turn async for turn in every_checkpoint(attempt)]
    await broker.publish_many(sent)

    found = await finish_all(broker, expected=len(sent))
    assert sorted(one.message.id for one in found) == sorted(one.id for one in sent)


@pytest.mark.needs("deduplication")
async def test_m2_a_cancelled_publisher_leaves_the_others_alone(broker):
    kept = [message() for _ in range(20)]
    cancelled = [message() for _ in range(20)]

    async with trio.open_nursery() as nursery:
        for number, (one, other) in enumerate(zip(kept, cancelled, strict=True)):
            nursery.start_soon(broker.publish, one)
            nursery.start_soon(cancelled_at, number % 4 + 1, lambda other=other: broker.publish(other))
    for other in cancelled:
        await broker.publish(other)

    found = await finish_all(broker, expected=40)
    assert sorted(one.message.id for one in found) == sorted(one.id for one in (*kept, *cancelled))


async def test_m8_a_cancelled_receive_leaves_nothing_with_nobody(broker):
    async with worker(broker) as consumer:

        async def attempt(turn):
            await broker.publish_many([message() for _ in range(2)])
            held = []

            async def take():
                held.extend(await consumer.receive(2))

            again = await cancelled_at(turn, take)
            await received_after_all(consumer, 2, held)
            assert len({one.receipt for one in held}) == 2
            assert {one.count for one in held} == {1}
            assert await settle(consumer, held, Done(None)) == [True, True]
            return again

        turns = [turn async for turn in every_checkpoint(attempt)]

    assert len(turns) > 1


async def test_m8_a_receive_that_is_cancelled_just_when_a_message_comes_leaves_nothing_with_nobody(broker):
    async with worker(broker) as consumer:
        for number in range(25):
            held = []
            async with trio.open_nursery() as nursery:

                async def take():
                    held.extend(await consumer.receive(1))  # noqa: B023

                nursery.start_soon(take)
                await broker.publish(message())
                if number % 2:
                    await trio.sleep(number * 0.00005)
                nursery.cancel_scope.cancel()
            await received_after_all(consumer, 1, held)
            assert await settle(consumer, held, Done(None)) == [True]


async def test_a_receive_that_waits_in_vain_can_be_cancelled_again_and_again(broker):
    async with worker(broker, "default", "other") as consumer:
        for _ in range(5):
            with trio.move_on_after(0.01) as waiting:
                await consumer.receive(1)
            assert waiting.cancelled_caught
        await broker.publish(message())
        await settle(consumer, await receive(consumer, 1), Done(None))


async def test_m1_a_cancelled_settle_can_be_repeated(harness, broker):
    one = message()
    outcomes = [Done("done"), Dead(OOPS), RetryIn(0, one, OOPS), Release("stopping")]
    async with worker(broker) as consumer:
        for outcome in outcomes:

            async def attempt(turn, outcome=outcome):
                task = message()
                if isinstance(outcome, RetryIn):
                    outcome = RetryIn(0, task, OOPS)
                await broker.publish(task)
                deliveries = await receive(consumer, 1)
                before = await books(broker)
                again = await cancelled_at(turn, lambda: settle(consumer, deliveries, outcome))
                await settle(consumer, deliveries, outcome)
                after = await books(broker)
                roads = ("done", "dead", "retried", "released")
                assert sum(after[road] - before[road] for road in roads) == 1
                assert (await broker.get_queue_sizes()).delivered == 0
                if isinstance(outcome, Done) and "joining" not in harness.cannot:
                    assert (await harness.backend.fetch(task.id)).value == "done"
                if isinstance(outcome, RetryIn | Release):
                    await settle(consumer, await receive(consumer, 1), Done(None))
                return again

            assert [turn async for turn in every_checkpoint(attempt)]


async def test_m11_a_cancelled_acknowledge_never_lets_a_message_run_twice(broker):
    async with worker(broker) as consumer:

        async def attempt(turn):
            await broker.publish(message())
            deliveries = await receive(consumer, 1)
            acked = []

            async def acknowledge():
                acked.extend(await consumer.acknowledge(deliveries))

            again = await cancelled_at(turn, acknowledge)
            if not acked:
                # The worker does not know, so it asks again; whatever the answer, it runs at most once.
                acked.extend(await consumer.acknowledge(deliveries))
            assert (await broker.get_queue_sizes()).delivered == 0
            if acked[0] is None:
                return again
            await settle(consumer, acked, Done(None))
            return again

        assert [turn async for turn in every_checkpoint(attempt)]


@pytest.mark.needs("keeper")
async def test_m1_a_cancelled_keeper_moves_each_message_once(broker):
    sent = []

    async def attempt(turn):
        sent.append(message())
        await broker.publish(sent[-1], delay=0.001)
        await trio.sleep(0.005)
        async with broker.keeper(["default"]) as keeper:
            return await cancelled_at(turn, keeper.promote)

    assert [turn async for turn in every_checkpoint(attempt)]
    await promoted(broker)

    found = await finish_all(broker, expected=len(sent))
    assert sorted(one.message.id for one in found) == sorted(one.id for one in sent)


@pytest.mark.needs("keeper")
async def test_m6_a_cancelled_reclaim_charges_once(broker):
    async def attempt(turn):
        await broker.publish(message())
        async with worker(broker) as doomed, broker.keeper(["default"]) as keeper:
            await receive(doomed, 1)
            again = await cancelled_at(turn, lambda: keeper.reclaim(dead=doomed.name))
            await keeper.reclaim(dead=doomed.name)
        (found,) = await finish_all(broker, expected=1)
        assert found.count == 2
        return again

    assert [turn async for turn in every_checkpoint(attempt)]


async def test_m1_a_cancelled_replay_happens_once_or_not_at_all(broker):
    async def attempt(turn):
        one = message()
        await bury(broker, one)
        again = await cancelled_at(turn, lambda: broker.replay_from_dlq(one.id))
        await broker.replay_from_dlq(one.id)
        assert [found.message.id for found in await finish_all(broker, expected=1)] == [one.id]
        assert await broker.get_dlq_count() == 0
        return again

    assert [turn async for turn in every_checkpoint(attempt)]


async def test_m1_a_worker_cancelled_with_deliveries_in_hand_loses_none(make):
    broker = make(lease=0.3).broker
    sent = [message() for _ in range(5)]
    await broker.publish_many(sent)

    with trio.CancelScope() as scope:
        async with worker(broker) as consumer:
            await receive(consumer, 5)
            scope.cancel()
            await consumer.receive(1)

    await taken_back(broker, 5)
    found = await finish_all(broker, expected=5)
    assert sorted(one.message.id for one in found) == sorted(one.id for one in sent)
