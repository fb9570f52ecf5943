"""A reply that gets lost repeats nothing and loses nothing, whichever command it belonged to."""

import hashlib
from pathlib import Path

import pytest
import trio
import trio.testing

import chicory.brokers.redis
from chicory.brokers.base import Settlement
from chicory.errors import BrokerUnavailable, PublishUnknown
from chicory.outcome import Dead, Done, RetryIn
from chicory.types import Failure, TaskMessage

SCRIPTS = Path(chicory.brokers.redis.__file__).parent / "scripts"


def calls(name):
    """Matches the command that runs a script by its digest."""
    digest = hashlib.sha1((SCRIPTS / f"{name}.lua").read_bytes()).hexdigest().encode()
    return lambda words: words[0].upper() == b"EVALSHA" and words[1] == digest


async def received(consumer, limit=10):
    """What arrives next, over broken lines."""
    while True:
        try:
            return await consumer.receive(limit)
        except BrokerUnavailable:
            await trio.sleep(0.01)


async def settled(consumer, settlements):
    while True:
        try:
            return await consumer.settle(settlements)
        except BrokerUnavailable:
            await trio.sleep(0.01)


async def books(broker):
    """(unfinished and dead places, what the counters say was ever put in)."""
    sizes = await broker.get_queue_sizes()
    counters = await broker.counters()
    into = counters.get("published", 0) + counters.get("replayed", 0)
    out = sum(counters.get(name, 0) for name in ("done", "failed", "dead", "purged", "lost"))
    assert into == out + sizes.ready + sizes.delayed + sizes.delivered
    return sizes


async def test_a_publish_whose_reply_is_lost_is_there_once(shaky, direct, proxy):
    await shaky.publish(TaskMessage(name="warm-up"))
    for _ in range(10):
        lost = proxy.swallow(calls("publish"))
        await shaky.publish(TaskMessage(name="t"))
        assert lost.is_set()

    assert (await books(direct)).ready == 11


async def test_a_delayed_publish_whose_reply_is_lost_is_there_once(shaky, direct, proxy):
    await shaky.publish(TaskMessage(name="warm-up"))
    lost = proxy.swallow(calls("publish"))
    await shaky.publish(TaskMessage(name="t"), delay=60)

    assert lost.is_set()
    assert (await books(direct)).delayed == 1


async def test_many_callers_share_a_batch_whose_reply_is_lost(shaky, direct, proxy):
    await shaky.publish(TaskMessage(name="warm-up"))
    lost = proxy.swallow(calls("publish"))
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(shaky.publish, TaskMessage(name="t"))

    assert lost.is_set()
    assert (await books(direct)).ready == 51


async def test_a_publish_without_answer_is_unknown_and_repeating_it_is_safe(brokers, direct, proxy):
    hasty = brokers(proxy.url, publish_timeout=0.3, connect_timeout=0.2)
    await hasty.publish(TaskMessage(name="warm-up"))
    message = TaskMessage(name="t")
    lost = proxy.swallow(calls("publish"))
    async with trio.open_nursery() as nursery:

        async def refuse_from_then_on():
            await lost.wait()
            proxy.refusing = True

        nursery.start_soon(refuse_from_then_on)
        with pytest.raises(PublishUnknown) as caught:
            # The line is reset as the reply gets lost; no new one comes up until time is up.
            proxy.refusing = True
            await hasty.publish(message)
    assert caught.value.ids == (message.id,)

    proxy.refusing = False
    await hasty.publish(message)

    assert (await books(direct)).ready == 2


async def test_a_publish_that_never_left_is_unavailable_and_not_there(brokers, direct, proxy):
    hasty = brokers(proxy.url, publish_timeout=0.2, connect_timeout=0.1)
    proxy.refusing = True

    with pytest.raises(BrokerUnavailable):
        await hasty.publish(TaskMessage(name="t"))

    assert (await direct.get_queue_sizes()).ready == 0


async def test_a_cancelled_publish_leaves_the_others_alone(shaky, direct, proxy):
    await shaky.publish(TaskMessage(name="warm-up"))
    proxy.blackhole(up=False)
    async with trio.open_nursery() as nursery:
        first = trio.CancelScope()

        async def give_up():
            with first:
                await shaky.publish(TaskMessage(id="first", name="t"))

        nursery.start_soon(give_up)
        await trio.testing.wait_all_tasks_blocked(0.05)
        nursery.start_soon(shaky.publish, TaskMessage(id="second", name="t"))
        await trio.testing.wait_all_tasks_blocked(0.05)
        first.cancel()
        await trio.testing.wait_all_tasks_blocked(0.05)
        proxy.heal()

    assert (await books(direct)).ready == 3


@pytest.mark.parametrize("outcome", ["done", "retry", "dead"])
async def test_a_settlement_whose_reply_is_lost_counts_once_and_is_ours(shaky, direct, proxy, outcome):
    await direct.publish(TaskMessage(name="t"))
    failure = Failure("E", "x")
    async with shaky.consumer(["default"], name="w", limit=10) as consumer:
        (delivery,) = await received(consumer)
        await consumer.renew()
        lost = proxy.swallow(calls("settle"))
        outcomes = {"done": Done(1), "retry": RetryIn(60, delivery.message, failure), "dead": Dead(failure)}

        answers = await settled(consumer, [Settlement(delivery, outcomes[outcome])])

    assert lost.is_set()
    assert list(answers) == [True]
    sizes = await books(direct)
    assert (sizes.ready, sizes.delivered) == (0, 0)
    assert (sizes.delayed, sizes.dead) == ((1, 0) if outcome == "retry" else (0, 1) if outcome == "dead" else (0, 0))
    assert (await direct.counters()).get("stale", 0) == 0


async def test_an_acknowledgement_whose_reply_is_lost_is_still_known_to_be_ours(shaky, direct, proxy):
    await direct.publish(TaskMessage(name="t"))
    async with shaky.consumer(["default"], name="w", limit=10) as consumer:
        deliveries = await received(consumer)
        await consumer.renew()
        lost = proxy.swallow(calls("settle"))

        (acknowledged,) = await consumer.acknowledge(deliveries)

        assert lost.is_set()
        assert acknowledged is not None
        assert acknowledged.acked
        assert list(await consumer.settle([Settlement(acknowledged, Done(None))])) == [True]
    assert (await books(direct)).delivered == 0


async def test_messages_whose_delivery_got_lost_are_received_all_the_same(shaky, direct, proxy):
    async with shaky.consumer(["default"], name="w", limit=10) as consumer:
        await direct.publish(TaskMessage(name="warm-up"))
        seen = [d.message.id for d in await received(consumer)]
        lost = proxy.swallow("XREADGROUP")
        sent = [TaskMessage(name="t") for _ in range(5)]
        await direct.publish_many(sent)

        with trio.fail_after(10):
            while len(seen) < 6:
                seen += [d.message.id for d in await received(consumer)]

        assert lost.is_set()
        assert sorted(seen[1:]) == sorted(m.id for m in sent)


async def test_what_the_server_says_we_hold_and_nobody_knows_of_is_found_without_a_broken_line(brokers, direct, server):
    broker = brokers(server.url, block_ms=20)
    await direct.publish(TaskMessage(name="t"))
    async with broker.consumer(["default"], name="w", limit=10) as consumer, trio.open_nursery() as nursery:
        (stream,) = consumer._reader.sources
        with server.client() as client:
            # As if it had been read by this worker, in a reply that nobody saw.
            client.xreadgroup("chicory-workers", "w", {stream: ">"})
        nursery.start_soon(consumer.receive, 1)
        with trio.fail_after(5):
            while not (found := await consumer.reconcile([])):
                await trio.sleep(0.01)

        assert [delivery.count for delivery in found] == [1]
        assert list(await consumer.reconcile([])) == []
        assert list(await consumer.settle([Settlement(delivery, Done(None)) for delivery in found])) == [True]
        nursery.cancel_scope.cancel()
    assert (await books(direct)).delivered == 0


async def test_promotion_whose_reply_is_lost_moves_each_message_once(shaky, direct, proxy):
    await direct.publish(TaskMessage(name="t"), delay=0.01)
    async with shaky.keeper(["default"]) as keeper:
        while (wait := await keeper.promote()) is not None and wait > 0:
            await trio.sleep(wait)
        await direct.publish(TaskMessage(name="t"), delay=0.000001)
        lost = proxy.swallow(calls("promote"))
        while not lost.is_set():
            with pytest.raises(BrokerUnavailable):
                await keeper.promote()
        while await keeper.promote() is not None:
            pass

    sizes = await books(direct)
    assert (sizes.ready, sizes.delayed) == (2, 0)


async def test_reclaim_whose_reply_is_lost_gives_each_message_back_once(shaky, direct, proxy):
    await direct.publish(TaskMessage(name="t"))
    async with (
        direct.consumer(["default"], name="dead", limit=1) as dying,
        shaky.keeper(["default"]) as keeper,
    ):
        await dying.receive(1)
        await keeper.reclaim()
        lost = proxy.swallow(calls("reclaim"))
        with pytest.raises(BrokerUnavailable):
            await keeper.reclaim(dead="dead", why="killed by SIGKILL")
        assert lost.is_set()
        await keeper.reclaim(dead="dead", why="killed by SIGKILL")

        async with direct.consumer(["default"], name="next", limit=1) as consumer:
            (again,) = await consumer.receive(1)
            assert (again.count, again.cause) == (2, "killed by SIGKILL")
            await consumer.settle([Settlement(again, Done(None))])
    sizes = await books(direct)
    assert (sizes.ready, sizes.delivered) == (0, 0)
