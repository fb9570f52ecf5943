"""The command took effect and its reply never came: nothing is lost, nothing happens twice (M2, M5, M8).

Only for brokers that are reached over a line.
"""

from functools import partial

import pytest
import trio

from chicory.errors import BrokerError
from chicory.outcome import Dead, Done, Release, RetryIn
from chicory.schedules.entry import Entry
from tests.contract.harness import (
    OOPS,
    RedisHarness,
    books,
    bury,
    finish_all,
    message,
    promoted,
    receive,
    settle,
    unique_name,
    worker,
)
from tests.proxy import open_proxy


@pytest.fixture(params=["redis", "embedded"])
def kind(request):
    return request.param


@pytest.fixture
async def proxy(kind, request):
    server = request.getfixturevalue(f"{kind}_server")
    async with open_proxy(server.address, unix=server.directory / f"p{unique_name()[-1]}") as opened:
        yield opened
    (server.directory / opened.address).unlink(missing_ok=True)


@pytest.fixture
def harness_type(kind, request, proxy):
    return partial(RedisHarness, request.getfixturevalue(f"{kind}_server"), url=proxy.url)


async def persistently(operation):
    """What a program does that takes BrokerError for what it is: try again."""
    with trio.fail_after(10):
        while True:
            try:
                return await operation()
            except BrokerError:
                await trio.sleep(0.01)


async def test_m2_a_publish_whose_answer_is_lost_is_there_once(broker, proxy):
    await broker.publish(message())
    one, *several = [message() for _ in range(4)]

    for operation in (lambda: broker.publish(one), lambda: broker.publish_many(several)):
        lost = proxy.swallow("EVALSHA")
        await persistently(operation)
        assert lost.is_set()

    assert len(await finish_all(broker, expected=5)) == 5
    assert (await books(broker))["published"] == 5


async def test_m2_also_without_a_result_to_be_recognised_by(make, proxy):
    broker = make(joined=False).broker
    await broker.publish(message())

    lost = proxy.swallow("EVALSHA")
    await broker.publish(message())

    assert lost.is_set()
    assert len(await finish_all(broker, expected=2)) == 2
    assert (await books(broker))["published"] == 2


@pytest.mark.parametrize("queues", [("default",), ("default", "other")])
async def test_m8_deliveries_whose_reply_is_lost_come_again_uncharged(broker, proxy, queues):
    async with worker(broker, *queues) as consumer:
        await broker.publish(message())
        await settle(consumer, await receive(consumer, 1), Done(None))
        sent = [message() for _ in range(3)]
        await broker.publish_many(sent)

        lost = proxy.swallow(lambda words: words[0] == b"XREADGROUP" or words[2] == b"2")
        found = await persistently(lambda: receive(consumer, 3))

        assert lost.is_set()
        assert [one.message.id for one in found] == [one.id for one in sent]
        assert [one.count for one in found] == [1, 1, 1]
        assert await settle(consumer, found, Done(None)) == [True] * 3


@pytest.mark.parametrize("kind_of_outcome", ["done", "dead", "retried", "released"])
async def test_m5_an_outcome_whose_answer_is_lost_is_carried_out_once(broker, backend, proxy, kind_of_outcome):
    one = message()
    outcome = {
        "done": Done(1),
        "dead": Dead(OOPS),
        "retried": RetryIn(0, one, OOPS),
        "released": Release("stopping"),
    }[kind_of_outcome]
    async with worker(broker) as consumer:
        await broker.publish(message())
        await settle(consumer, await receive(consumer, 1), Release("to have the script loaded"))
        await settle(consumer, await receive(consumer, 1), Done(None))
        await broker.publish(one)
        deliveries = await receive(consumer, 1)
        before = await books(broker)

        lost = proxy.swallow("EVALSHA")
        assert await persistently(lambda: settle(consumer, deliveries, outcome)) == [True]

        assert lost.is_set()
        after = await books(broker)
        assert after[kind_of_outcome] - before[kind_of_outcome] == 1
        assert after["stale"] == before["stale"]
        sizes = await broker.get_queue_sizes()
        assert (sizes.ready, sizes.delivered, sizes.dead) == (
            int(kind_of_outcome in ("retried", "released")),
            0,
            int(kind_of_outcome == "dead"),
        )


async def test_m1_a_promotion_whose_answer_is_lost_moves_each_message_once(broker, proxy):
    await promoted(broker)
    await broker.publish(message(), delay=0.01)
    await trio.sleep(0.02)

    lost = proxy.swallow("EVALSHA")
    await persistently(lambda: promoted(broker))

    assert lost.is_set()
    assert len(await finish_all(broker, expected=1)) == 1


async def test_m6_a_reclaim_whose_answer_is_lost_charges_once(broker, proxy):
    async with broker.keeper(["default"]) as keeper:
        await keeper.reclaim(dead="nobody")
        await broker.publish(message())
        async with worker(broker, name=(name := unique_name())) as doomed:
            await receive(doomed, 1)

            lost = proxy.swallow("EVALSHA")
            await persistently(lambda: keeper.reclaim(dead=name))
            await persistently(lambda: keeper.reclaim(dead=name))
            assert lost.is_set()

    (found,) = await finish_all(broker, expected=1)
    assert found.count == 2
    assert (await books(broker))["reclaimed"] == 1


async def test_m1_a_replay_whose_answer_is_lost_happens_once(broker, proxy):
    first, second = message(), message()
    await bury(broker, first, second)
    await broker.replay_from_dlq(first.id)

    lost = proxy.swallow("EVALSHA")
    await persistently(lambda: broker.replay_from_dlq(second.id))
    await persistently(lambda: broker.replay_from_dlq(second.id))

    assert lost.is_set()
    assert len(await finish_all(broker, expected=2)) == 2
    assert (await books(broker))["replayed"] == 2


async def test_a_slot_whose_answer_is_lost_is_fired_once(make, proxy):
    broker = make(joined=False).broker
    timetable, entry = broker.timetable(), Entry("nightly", "default", "every 60 s")
    start = (await timetable.look([entry])).now
    await trio.sleep(0.02)
    first, second = start + 0.001, start + 0.002
    assert await timetable.fire(entry, first, message(id="first"))

    lost = proxy.swallow("EVALSHA")
    assert await persistently(lambda: timetable.fire(entry, second, message(id="second"))) is False

    assert lost.is_set()
    assert (await persistently(lambda: timetable.look([entry]))).known["nightly"].fired == pytest.approx(
        second, abs=1e-6
    )
    assert [one.message.id for one in await finish_all(broker, expected=2)] == ["first", "second"]
    assert (await books(broker))["published"] == 2


async def test_a_pause_whose_answer_is_lost_holds(broker, proxy):
    timetable, entry = broker.timetable(), Entry("nightly", "default", "every 60 s")
    await timetable.resume(entry)

    lost = proxy.swallow("EVALSHA")
    await persistently(lambda: timetable.pause(entry))

    assert lost.is_set()
    assert (await timetable.look([entry])).known["nightly"].paused


async def test_every_operation_survives_a_reset_of_all_connections(broker, backend, proxy):
    sent = [message() for _ in range(12)]

    async with worker(broker) as consumer:
        for one in sent:
            proxy.reset()
            await persistently(lambda one=one: broker.publish(one))
            proxy.reset()
            deliveries = await persistently(lambda: receive(consumer, 1))
            proxy.reset()
            assert await persistently(lambda d=deliveries: settle(consumer, d, Done(None))) == [True]
            proxy.reset()
            assert (await persistently(lambda one=one: backend.wait(one.id))).state.finished

    assert (await books(broker))["done"] == 12
