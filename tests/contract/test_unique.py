"""Unique messages: of those with one key one at a time is enough, and whoever publishes another is given its id."""

from collections import Counter

import pytest
import trio

from chicory import RetryPolicy, TaskContext, Unique
from chicory.app import Chicory
from chicory.brokers.base import Settlement
from chicory.errors import QueueFull
from chicory.outcome import Dead, Done, Failed, Release, RetryIn
from chicory.schedules.entry import Entry
from chicory.testing import running_worker
from chicory.types import QueueSizes
from tests.contract.harness import OOPS, books, finish_all, message, promoted, receive, settle, taken_back, worker


def one(key="a", **fields):
    return message(**{"unique": key, **fields})


async def free(broker, key="a", **fields):
    """Whether a message with *key* would be published now; it is, and stays."""
    again = one(key, **fields)
    return await broker.publish(again) == again.id


async def test_the_second_is_given_the_id_of_the_first(broker):
    first = one()

    assert await broker.publish(first) == first.id
    assert await broker.publish(one()) == first.id
    assert await broker.publish(one(), delay=60) == first.id
    assert await free(broker, "b")
    assert await broker.publish(one(queue="other")) != first.id
    assert (await broker.get_queue_sizes()) == QueueSizes(ready=2, delayed=0, delivered=0, dead=0)
    assert (await books(broker))["published"] == 2


@pytest.mark.parametrize("key", ["a b", "ä", '{"x": 1}', "x" * 512, "%s 0", "\n"])
async def test_any_text_is_a_key(broker, key):
    first = one(key)

    assert await broker.publish(first) == first.id
    assert await broker.publish(one(key)) == first.id
    assert [found.message.unique for found in await finish_all(broker, expected=1)] == [key]
    assert await free(broker, key)


async def test_a_key_is_held_while_its_message_waits_runs_and_is_tried_again(broker):
    first = one()
    await broker.publish(first, delay=0.05)
    assert await broker.publish(one()) == first.id

    async with worker(broker) as consumer:
        with trio.fail_after(10):
            while await promoted(broker) is not None:
                await trio.sleep(0.01)
        for outcome in (Release("stopping"), RetryIn(0.0, first, OOPS), RetryIn(60.0, first, OOPS)):
            deliveries = await receive(consumer, 1)
            assert await broker.publish(one()) == first.id
            await settle(consumer, deliveries, outcome)
            assert await broker.publish(one()) == first.id

    assert await broker.get_queue_sizes() == QueueSizes(ready=0, delayed=1, delivered=0, dead=0)


@pytest.mark.parametrize("outcome", [Done(1), Failed(OOPS), Dead(OOPS)], ids=lambda outcome: type(outcome).__name__)
async def test_the_end_frees_the_key(broker, outcome):
    await broker.publish(one())

    async with worker(broker) as consumer:
        assert await settle(consumer, await receive(consumer, 1), outcome) == [True]

    assert await free(broker)
    assert not await free(broker)


@pytest.mark.parametrize("outcome", [Done(1), RetryIn(60.0, one(), OOPS)], ids=lambda outcome: type(outcome).__name__)
async def test_a_cancelled_task_frees_its_key_however_it_ends(broker, outcome):
    first = one(unique_window=60)
    await broker.publish(first)

    async with worker(broker) as consumer:
        deliveries = await receive(consumer, 1)
        assert await broker.cancel(first.id)
        assert await broker.publish(one()) == first.id
        assert await settle(consumer, deliveries, outcome) == [True]

    assert await free(broker)


async def test_a_window_outlasts_success_and_no_failure(broker):
    held, failed, short = (
        one("held", unique_window=60),
        one("failed", unique_window=60),
        one("short", unique_window=0.05),
    )
    await broker.publish_many([held, failed, short])

    async with worker(broker) as consumer:
        for delivery in await receive(consumer, 3):
            await settle(consumer, [delivery], Dead(OOPS) if delivery.message.unique == "failed" else Done(1))

    assert await broker.publish(one("held")) == held.id
    assert await free(broker, "failed")
    with trio.fail_after(5):
        while not await free(broker, "short"):
            await trio.sleep(0.01)


async def test_a_window_does_not_end_what_is_unfinished(broker):
    first = one(unique_window=0.01)
    await broker.publish(first)

    await trio.sleep(0.03)

    assert await broker.publish(one()) == first.id


async def test_the_death_of_a_worker_does_not_free_the_key(make):
    broker = make(lease=0.2).broker
    first = one()
    await broker.publish(first)

    async with worker(broker, name="a:b:c:d:dead") as consumer:
        deliveries = await receive(consumer, 1)
        await taken_back(broker, 1, dead=consumer.name)
        assert await broker.publish(one()) == first.id
        # Who was taken for dead frees nothing.
        assert await settle(consumer, deliveries, Done(1)) == [False]
        assert await broker.publish(one()) == first.id

    await finish_all(broker, expected=1)
    assert await free(broker)


async def test_at_most_once_frees_the_key_when_the_run_begins(broker):
    await broker.publish_many([one(), one("b", unique_window=60)])

    async with worker(broker) as consumer:
        acked = await consumer.acknowledge(await receive(consumer, 2))
        later = one()
        assert await broker.publish(later) == later.id
        assert not await free(broker, "b")
        # It frees what is its own, and that is not its own any more.
        assert all(await consumer.settle([Settlement(delivery, Done(1)) for delivery in acked]))
        assert await broker.publish(one()) == later.id


async def test_a_replayed_dead_letter_holds_its_key_again_unless_another_does(broker):
    first, second, other = one(), one("b"), one("b")
    await broker.publish_many([first, second])
    async with worker(broker) as consumer:
        await settle(consumer, await receive(consumer, 2), Dead(OOPS))
    await broker.publish(other)

    assert await broker.replay_from_dlq(first.id)
    assert await broker.replay_from_dlq(second.id)

    assert await broker.publish(one()) == first.id
    assert await broker.publish(one("b")) == other.id
    await finish_all(broker, expected=3)
    assert await free(broker)
    assert await free(broker, "b")


async def test_purging_a_queue_frees_its_keys_and_no_others(broker):
    waiting, later, held = one("waiting"), one("later"), one("held")
    await broker.publish(held)

    async with worker(broker) as consumer:
        deliveries = await receive(consumer, 1)
        await broker.publish_many([waiting, *(message() for _ in range(300))])
        await broker.publish(later, delay=60)
        assert await broker.purge_queue() == 302

        assert await free(broker, "waiting")
        assert await free(broker, "later")
        assert await broker.publish(one("held")) == held.id
        await settle(consumer, deliveries, Done(1))


async def test_many_are_given_an_id_each_across_batches(broker):
    sent = [one(f"key {number % 300}") for number in range(700)]

    there = await broker.publish_many(sent)

    assert list(there) == [sent[number % 300].id for number in range(700)]
    assert (await broker.get_queue_sizes()).ready == 300


@pytest.mark.needs("an exact limit")
async def test_a_full_queue_gives_the_id_of_what_it_has(make):
    broker = make(max_stream_length=1).broker
    first = one()
    await broker.publish(first)

    assert await broker.publish(one()) == first.id
    with pytest.raises(QueueFull):
        await broker.publish(one("b"))
    await finish_all(broker, expected=1)
    assert await free(broker, "b")


@pytest.mark.needs("deduplication")
async def test_repeating_the_first_after_its_end_holds_nothing(broker):
    first = one()
    await broker.publish(first)
    assert await broker.publish(first) == first.id
    await finish_all(broker, expected=1)

    assert await broker.publish(first) == first.id

    assert await free(broker)


@pytest.mark.parametrize("joined", [True, False])
async def test_of_many_callers_at_once_one_is_served_and_all_are_given_its_result(make, joined):
    harness = make(joined=joined)
    app = Chicory(harness.broker, harness.backend)
    if not joined:
        harness.backend.joins = lambda broker: False

    @app.task(name="add", unique=True)
    async def add(x: int, y: int = 1) -> int:
        return x + y

    found = Counter()

    async def call(number):
        result = await add.delay(number % 3, y=2)
        found[result.id] += 1

    async with trio.open_nursery() as nursery:
        for number in range(60):
            nursery.start_soon(call, number)
    many = await app.publish_many([add.message(number % 3, y=2) for number in range(6)])

    assert sorted(found.values()) == [20, 20, 20]
    assert {result.id for result in many} == found.keys()
    assert {one.message.id for one in await finish_all(app.broker, expected=3)} == found.keys()
    assert await free(app.broker, add.message(1, y=2).unique)


async def test_a_key_of_ones_own_may_be_made_of_the_arguments(broker, backend):
    app = Chicory(broker, backend)

    @app.task(name="bill", unique=Unique(key=lambda order, note="": f"order {order}", window=60))
    def bill(order: int, note: str = "") -> None: ...

    first = await bill.send(7)

    assert await bill.send(7, note="again") == first
    assert await bill.options(unique=False).send(7) != first
    assert await bill.send(8) != first
    assert await app.remote("bill").options(unique="order 7").send() == first
    assert (await broker.get_queue_sizes()).ready == 3


async def test_a_schedule_sends_nothing_while_its_last_run_is_unfinished(broker):
    timetable, entry = broker.timetable(), Entry("nightly", "default", "every 60 s")
    begun = (await timetable.look([entry])).now
    await trio.sleep(0.02)

    assert await timetable.fire(entry, begun + 0.001, one())
    assert not await timetable.fire(entry, begun + 0.002, one())
    assert len(await finish_all(broker, expected=1)) == 1

    # That slot was over with that; the next one finds the key free.
    assert not await timetable.fire(entry, begun + 0.002, one())
    assert await timetable.fire(entry, begun + 0.003, one())
    assert not await free(broker)


async def test_of_many_callers_at_once_a_worker_runs_one_and_all_get_its_result(harness):
    app = Chicory(harness.broker, harness.backend, retry_policy=RetryPolicy(max_retries=1, retry_delay=0.0))
    ready, runs, calls, results = trio.Event(), [], [], []

    @app.task(name="count", unique=True)
    async def count(context: TaskContext, step: int) -> int:
        runs.append(context.retries)
        await ready.wait()
        if not context.retries:
            raise ValueError("once more")
        return step + len(runs)

    async def call():
        calls.append(await count.delay(0))
        results.append(await calls[-1].get(timeout=10))

    with trio.fail_after(15):
        async with running_worker(app), trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(call)
            while not runs or len(calls) < 30:
                await trio.sleep(0.005)
            assert await count.send(0) == await count.send(0)
            ready.set()
        async with running_worker(app):
            again = await count.delay(0)
            assert await again.get(timeout=10) == 4

    assert results == [2] * 30
    assert runs == [0, 1, 0, 1]
