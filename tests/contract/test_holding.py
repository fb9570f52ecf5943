"""Holding deliveries: leases, fences, counts, and never more than asked for (M3, M5, M6, M7, M8)."""

import time
from contextlib import AsyncExitStack

import pytest
import trio
from msgspec.structs import replace

from chicory.outcome import Dead, Done, Release, RetryIn
from chicory.types import QueueSizes
from tests.contract.harness import (
    OOPS,
    books,
    finish_all,
    message,
    nothing_comes,
    receive,
    settle,
    taken_back,
    unique_name,
    worker,
)


@pytest.mark.needs("keeper")
async def test_m3_a_renewed_lease_keeps_a_delivery_for_any_time(make):
    broker = make(lease=0.5).broker
    await broker.publish(message())

    async with worker(broker) as consumer, broker.keeper(["default"]) as keeper:
        deliveries = await receive(consumer, 1)
        assert consumer.lease == 0.5
        for _ in range(12):
            assert await consumer.renew()
            assert await keeper.reclaim() == 0
            await trio.sleep(0.1)

        assert await settle(consumer, deliveries, Done(None)) == [True]


@pytest.mark.needs("keeper")
async def test_m3_a_lapsed_lease_gives_the_delivery_to_another(make):
    broker = make(lease=0.4).broker
    one = message()
    await broker.publish(one)

    async with worker(broker) as silent, worker(broker, name=unique_name()) as lively:
        await receive(silent, 1)
        async with trio.open_nursery() as nursery:

            async def stay_alive():
                while True:
                    assert await lively.renew()
                    await trio.sleep(0.05)

            nursery.start_soon(stay_alive)
            await taken_back(broker, 1)
            (again,) = await receive(lively, 1)
            nursery.cancel_scope.cancel()

        assert again.message == one
        assert await silent.renew() is False
        assert await settle(lively, [again], Done(None)) == [True]


@pytest.mark.needs("keeper")
async def test_m3_a_worker_that_is_known_to_live_keeps_its_deliveries(make):
    broker = make(lease=0.4).broker
    await broker.publish(message())

    async with worker(broker, name=(name := unique_name())) as busy, broker.keeper(["default", "other"]) as keeper:
        deliveries = await receive(busy, 1)
        assert keeper.lease == 0.4
        for _ in range(12):
            assert await keeper.renew([unique_name(), name]) > 0
            assert await keeper.reclaim() == 0
            await trio.sleep(0.08)

        assert await busy.renew()
        assert await settle(busy, deliveries, Done(None)) == [True]


@pytest.mark.needs("keeper")
async def test_m3_nobody_makes_a_lease_for_another(broker):
    await broker.publish(message())

    async with worker(broker, name=(name := unique_name())) as doomed, broker.keeper(["default"]) as keeper:
        await receive(doomed, 1)
        await taken_back(broker, 1, dead=name)
        assert await keeper.renew([name, unique_name()]) == 0
        assert await keeper.renew([]) == 0
        assert await doomed.renew() is False

    await finish_all(broker, expected=1)


@pytest.mark.needs("keeper")
async def test_m3_of_a_workers_lives_the_last_is_renewed(make):
    broker = make(lease=0.4).broker
    await broker.publish_many([message() for _ in range(4)])
    name = unique_name()
    lives = [name, f"{name}+2", f"{name}+10"]

    async with broker.keeper(["default"]) as keeper, AsyncExitStack() as stack:
        consumers = [await stack.enter_async_context(worker(broker, name=one)) for one in lives]
        other = await stack.enter_async_context(worker(broker, name=f"{name}0"))
        for consumer in (*consumers, other):
            await receive(consumer, 1)
        taken = 0
        with trio.fail_after(10):
            while taken < 3:
                assert await keeper.renew([name]) == 1
                taken += await keeper.reclaim()
                await trio.sleep(0.02)

        assert [await consumer.renew() for consumer in (*consumers, other)] == [False, False, True, False]


async def test_m6_a_dead_worker_is_dead_in_all_its_lives(broker):
    await broker.publish_many([message() for _ in range(4)])
    name = unique_name()

    async with AsyncExitStack() as stack:
        lives = [await stack.enter_async_context(worker(broker, name=one)) for one in (name, f"{name}+2", f"{name}+10")]
        other = await stack.enter_async_context(worker(broker, name=f"{name}0"))
        strange = await stack.enter_async_context(worker(broker, name=f"{name}+2b"))
        for consumer in (*lives, other):
            await receive(consumer, 1)
        await taken_back(broker, 3, dead=name)

        assert [await consumer.renew() for consumer in (*lives, other, strange)] == [False, False, False, True, True]


async def test_m5_a_late_outcome_is_refused_counted_and_changes_nothing(broker):
    one = message()
    await broker.publish(one)

    async with worker(broker, name=(name := unique_name())) as late, worker(broker) as current:
        (stale,) = await receive(late, 1)
        await taken_back(broker, 1, dead=name)
        (fresh,) = await receive(current, 1)
        assert fresh.receipt != stale.receipt

        for outcome in (Done("late"), Dead(OOPS), RetryIn(0, one, OOPS), Release("late")):
            assert await settle(late, [stale], outcome) == [False]
        assert await broker.get_queue_sizes() == QueueSizes(ready=0, delayed=0, delivered=1, dead=0)
        assert await settle(current, [fresh], Done("in time")) == [True]

    assert (await books(broker))["stale"] == 4


@pytest.mark.needs("joining")
async def test_m5_the_result_of_a_late_outcome_is_not_stored(broker, backend):
    one = message()
    await broker.publish(one)

    async with worker(broker, name=(name := unique_name())) as late, worker(broker) as current:
        stale = await receive(late, 1)
        await taken_back(broker, 1, dead=name)
        fresh = await receive(current, 1)
        await settle(late, stale, Done("late"))
        await settle(current, fresh, Done("in time"))
        await settle(late, stale, Done("late again"))

    assert (await backend.fetch(one.id)).value == "in time"


async def test_m5_settling_twice_settles_once(broker):
    await broker.publish(message())

    async with worker(broker) as consumer:
        deliveries = await receive(consumer, 1)
        assert await settle(consumer, deliveries, Done(None)) == [True]
        assert await settle(consumer, deliveries, Dead(OOPS)) == [False]

    totals = await books(broker)
    assert (totals["done"], totals["dead"], totals["stale"]) == (1, 0, 1)


async def test_m5_each_outcome_of_a_batch_stands_for_itself(broker):
    await broker.publish_many([message() for _ in range(3)])

    async with worker(broker) as consumer:
        first, second, third = await receive(consumer, 3)
        await settle(consumer, [second], Done(None))
        assert await settle(consumer, [first, second, third], Done(None)) == [True, False, True]


async def test_m6_a_crash_is_charged_and_its_cause_travels(broker):
    await broker.publish(message())

    for count in (1, 2, 3):
        async with worker(broker, name=(name := unique_name())) as doomed:
            (delivery,) = await receive(doomed, 1)
            assert delivery.count == count
            assert ("killed" in delivery.cause) == (count > 1)
            await taken_back(broker, 1, dead=name)

    (last,) = await finish_all(broker, expected=1)
    assert (last.count, last.message.retries) == (4, 0)
    assert (await books(broker))["reclaimed"] == 3


async def test_m6_deaths_that_may_be_a_neighbours_fault_are_charged_up_to_a_limit(broker):
    await broker.publish(message())

    counts = []
    for _ in range(4):
        async with worker(broker, name=(name := unique_name())) as doomed:
            counts += [delivery.count for delivery in await receive(doomed, 1)]
            await taken_back(broker, 1, dead=name, most=3)

    assert counts == [1, 2, 3, 3]
    assert [one.count for one in await finish_all(broker, expected=1)] == [3]


async def test_m6_what_was_isolated_is_charged_beyond_the_limit_and_nothing_beside_it(broker):
    await broker.publish_many([message(args=["culprit"]), message(args=["neighbour"])])
    await broker.publish(message(queue="other"))

    async with worker(broker, "default", "other", name=(name := unique_name())) as doomed:
        deliveries = {tuple(one.message.args): one for one in await receive(doomed, 3)}
        await doomed.isolate(deliveries[("culprit",)])
        await taken_back(broker, 3, "default", "other", dead=name, most=1)

    found = await finish_all(broker, "default", "other", expected=3)
    assert sorted((one.message.args, one.count) for one in found) == [([], 1), (["culprit"], 2), (["neighbour"], 1)]


async def test_m6_what_was_isolated_first_and_settled_is_forgotten(broker):
    await broker.publish_many([message(args=[number]) for number in range(2)])

    async with worker(broker, name=(name := unique_name())) as doomed:
        first, second = await receive(doomed, 2)
        await doomed.isolate(first)
        assert await settle(doomed, [first], Done(None)) == [True]
        await taken_back(broker, 1, dead=name, most=1)

    (found,) = await finish_all(broker, expected=1)
    assert (found.message, found.count) == (second.message, 1)


async def test_m6_being_given_back_costs_nothing(broker):
    await broker.publish(message())

    async with worker(broker) as consumer:
        for _ in range(3):
            (delivery,) = await receive(consumer, 1)
            assert (delivery.count, delivery.message.retries) == (1, 0)
            assert await settle(consumer, [delivery], Release("stopping")) == [True]

    assert (await finish_all(broker, expected=1))[0].count == 1
    assert (await books(broker))["released"] == 3


async def test_m6_a_charged_release_counts(broker):
    await broker.publish(message())

    async with worker(broker) as consumer:
        await settle(consumer, await receive(consumer, 1), Release("out of memory", charged=True))

    (delivery,) = await finish_all(broker, expected=1)
    assert (delivery.count, delivery.cause) == (2, "out of memory")


async def test_m6_the_count_survives_being_given_back(broker):
    await broker.publish(message())

    async with worker(broker) as consumer:
        await settle(consumer, await receive(consumer, 1), Release("died", charged=True))
        await settle(consumer, await receive(consumer, 1), Release("stopping"))

    assert (await finish_all(broker, expected=1))[0].count == 2


@pytest.mark.needs("keeper")
async def test_m6_crashes_of_many_are_taken_back_piece_by_piece(broker):
    await broker.publish_many([message() for _ in range(25)])

    async with worker(broker, name=(name := unique_name())) as doomed, broker.keeper(["default"]) as keeper:
        await receive(doomed, 25)
        pieces = []
        while piece := await keeper.reclaim(10, dead=name):
            pieces.append(piece)
        assert pieces == [10, 10, 5]
        assert await doomed.renew() is False

    assert len(await finish_all(broker, expected=25)) == 25


@pytest.mark.needs("keeper")
async def test_m6_two_keepers_take_back_each_delivery_once(broker):
    await broker.publish_many([message() for _ in range(40)])

    async with worker(broker, name=(name := unique_name())) as doomed:
        await receive(doomed, 40)
        taken = []

        async def keep():
            async with broker.keeper(["default"]) as keeper:
                while got := await keeper.reclaim(7, dead=name):
                    taken.append(got)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(keep)

    assert sum(taken) == 40
    found = await finish_all(broker, expected=40)
    assert {one.count for one in found} == {2}
    assert len({one.message.id for one in found}) == 40


async def test_m3_the_death_of_one_takes_nothing_from_another(broker):
    await broker.publish_many([message(), message()])

    async with worker(broker, name=(name := unique_name())) as doomed, worker(broker) as healthy:
        await receive(doomed, 1)
        held = await receive(healthy, 1)
        await taken_back(broker, 1, dead=name)

        assert await healthy.renew()
        assert await settle(healthy, held, Done(None)) == [True]
        assert await settle(healthy, await receive(healthy, 1), Done(None)) == [True]


async def test_m7_receive_gives_at_most_what_was_asked_for(broker):
    await broker.publish_many([message() for _ in range(5)])

    async with worker(broker) as consumer:
        first = await consumer.receive(2)
        assert 1 <= len(first) <= 2
        rest = await receive(consumer, 5 - len(first))
        await settle(consumer, [*first, *rest], Done(None))


async def test_m7_receive_gives_at_most_what_was_asked_for_over_all_queues(broker):
    await broker.publish_many([message() for _ in range(3)])
    await broker.publish_many([message(queue="other") for _ in range(3)])

    async with worker(broker, "default", "other") as consumer:
        found = []
        while len(found) < 6:
            some = await consumer.receive(2)
            assert 1 <= len(some) <= 2
            found += some
        await settle(consumer, found, Done(None))

    assert {one.queue for one in found} == {"default", "other"}


async def test_m7_a_worker_never_holds_more_than_it_joined_for(broker):
    await broker.publish_many([message() for _ in range(5)])

    async with worker(broker, limit=3) as consumer:
        held = await receive(consumer, 3)
        with trio.move_on_after(0.1):
            held += await consumer.receive(10)
        assert len(held) == 3

        await settle(consumer, held[:1], Done(None))
        (one,) = await consumer.receive(10)
        await settle(consumer, [*held[1:], one], Done(None))


async def test_no_queue_starves_another(broker):
    await broker.publish_many([message() for _ in range(50)])
    await broker.publish(message(queue="other"))

    async with worker(broker, "default", "other") as consumer:
        found = await receive(consumer, 51)
        assert {one.queue for one in found} == {"default", "other"}
        await settle(consumer, found, Done(None))


async def test_m7_two_workers_share_and_no_message_goes_to_both(broker):
    sent = [message() for _ in range(40)]
    await broker.publish_many(sent)
    found = []

    async def work():
        async with worker(broker) as consumer:
            while len(found) < 40:
                with trio.move_on_after(0.2):
                    some = await consumer.receive(3)
                    found.extend(some)
                    await settle(consumer, some, Done(None))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        nursery.start_soon(work)

    assert sorted(one.message.id for one in found) == sorted(one.id for one in sent)


async def test_m8_there_is_nothing_to_reconcile_when_all_is_known(broker):
    await broker.publish_many([message() for _ in range(3)])

    async with worker(broker) as consumer:
        deliveries = await receive(consumer, 3)
        assert list(await consumer.reconcile({one.receipt for one in deliveries})) == []
        await settle(consumer, deliveries, Done(None))
        assert list(await consumer.reconcile(set())) == []


async def test_m1_leaving_loses_nothing_that_was_received(make):
    broker = make(lease=0.3).broker
    one = message()
    await broker.publish(one)

    async with worker(broker) as consumer:
        await receive(consumer, 1)

    await taken_back(broker, 1)
    assert [found.message.id for found in await finish_all(broker, expected=1)] == [one.id]


@pytest.mark.needs("keeper")
async def test_a_worker_that_left_with_nothing_leaves_nothing_to_take_back(broker):
    async with worker(broker, name=(name := unique_name())):
        pass

    async with broker.keeper(["default"]) as keeper:
        assert await keeper.reclaim(dead=name) == 0


async def test_a_retry_replaces_its_message(broker):
    one = message(args=[1])
    await broker.publish(one)

    async with worker(broker) as consumer:
        retried = replace(one, retries=1)
        assert await settle(consumer, await receive(consumer, 1), RetryIn(0, retried, OOPS)) == [True]
        (again,) = await receive(consumer, 1)
        assert again.message == retried
        assert await nothing_comes(consumer, 0.05)
        await settle(consumer, [again], Done(None))

    totals = await books(broker)
    assert (totals["published"], totals["retried"], totals["done"]) == (1, 1, 1)


async def test_the_consumers_clock_is_unix_time(broker):
    async with worker(broker) as consumer:
        assert abs(consumer.now() - time.time()) < 2
