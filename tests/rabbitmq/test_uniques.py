"""Unique keys in RabbitMQ: one of many callers is first, whoever dies, and a key is never held without its message."""

from contextlib import AsyncExitStack

import pytest
import trio

from chicory.brokers.base import Settlement
from chicory.brokers.rabbitmq import uniques
from chicory.brokers.rabbitmq.register import Page
from chicory.brokers.rabbitmq.turn import taken
from chicory.errors import BrokerRefused, BrokerUnavailable, PublishUnknown
from chicory.outcome import Done
from tests.contract.harness import finish_all, message, receive, settle, worker
from tests.rabbitmq.test_crashes import Operation, Scene, crash_after, nothing, places, proxy

__all__ = ["proxy"]

# The keys of a quorum queue are in one, too.
TYPES = pytest.mark.parametrize("queue_type", ["classic", pytest.param("quorum", marks=pytest.mark.long)])


def one(**fields):
    return message(**{"unique": "a", **fields})


async def beside(broker, queue="default"):
    """How much there is where the keys of a queue are."""
    async with taken(broker._ends.current()._turns, broker.config, broker._names_of(queue).unique.table) as turn:
        return len(turn.found)


@TYPES
async def test_of_many_callers_on_several_connections_one_is_first_and_all_are_given_its_id(brokers, queue_type):
    several, ids = [brokers(queue_type=queue_type) for _ in range(4)], []

    async def call(broker):
        ids.append(await broker.publish(one()))

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(call, several[number % 4])

    assert len(ids) == 20
    assert len(set(ids)) == 1
    assert (await several[0].get_queue_sizes()).ready == 1
    async with worker(several[0]) as consumer:
        (delivery,) = await receive(consumer, 1)
        assert delivery.message.id == ids[0]
        await settle(consumer, [delivery], Done(1))


@TYPES
async def test_a_caller_that_crashes_after_any_frame_keeps_its_key_from_nobody(brokers, proxy, vhost, queue_type):
    """The next one is given the id of a message that is there: the first one's, or its own."""
    direct, frames, crashed = brokers(queue_type=queue_type), 0, True

    while crashed:
        proxy.heal()
        url = f"amqp://127.0.0.1:{proxy.address[1]}/{vhost}"
        through = brokers(url=url, publish_timeout=2.0, queue_type=queue_type)
        queue = f"q{frames}"
        first, second = one(queue=queue), one(queue=queue)
        publish = Operation(nothing, lambda scene, first=first: scene.broker.publish(first), (0, 1), (1, 1))
        async with AsyncExitStack() as stack:
            crashed = await crash_after(frames, publish, Scene(proxy, through, queue, stack))
        await proxy.emptied()

        there = await direct.publish(second)

        found = await places(direct, queue, [there])
        assert found[there] == 1
        assert found.keys() <= {first.id, second.id}
        assert crashed or there == first.id
        frames += 1

    assert frames > 10


async def test_who_dies_between_the_message_and_its_note_leaves_the_key_free(brokers, monkeypatch):
    broker, other = brokers(), brokers()
    first, second = one(), one()

    async def die(page, body):
        page._turn.connection.close()
        raise BrokerUnavailable("killed")

    with monkeypatch.context() as patch, pytest.raises(PublishUnknown) as unknown:
        patch.setattr(Page, "write", die)
        await broker.publish(first)
    assert unknown.value.ids == (first.id,)

    assert await other.publish(second) == second.id
    assert await other.publish(one()) == second.id
    found = await finish_all(other, expected=2)
    assert {delivery.message.id for delivery in found} == {first.id, second.id}


async def test_who_dies_before_the_acknowledgement_leaves_a_message_without_its_key(brokers):
    broker, other = brokers(), brokers()
    first, second = one(), one()
    await broker.publish(first)

    async with worker(broker) as doomed:
        (delivery,) = await receive(doomed, 1)
        doomed._acknowledge = lambda done: doomed._line.close()
        await doomed.settle([Settlement(delivery, Done(None))])

    assert await other.publish(second) == second.id
    found = await finish_all(other, expected=2)
    assert {delivery.message.id for delivery in found} == {first.id, second.id}
    assert await beside(other) <= 3


async def test_what_is_over_is_forgotten_when_the_keys_are_read_next(broker, monkeypatch):
    await broker.publish_many([one(unique=f"key {number}") for number in range(50)])
    assert await beside(broker) == 1
    await finish_all(broker, expected=50)
    assert await beside(broker) == 51

    last = one(unique="last")
    assert await broker.publish(last) == last.id

    assert await beside(broker) == 1
    async with broker._ends.current().uniques.taken(broker._names_of("default")) as keys:
        assert list(keys._holds) == ["last"]
    await finish_all(broker, expected=1)


async def test_a_key_whose_message_somebody_else_deleted_is_free_in_the_end(broker, rabbit_node, vhost, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(uniques, "_UNFINISHED", 0.05)
        gone = one()
        await broker.publish(gone)
    broker._books.note("default", "purged", 1)
    rabbit_node.delete_queue(vhost, "chicory.queue.default")
    with trio.fail_after(5):
        while (again := await broker.publish(one())) == gone.id:
            await trio.sleep(0.01)

    assert [found.message.id for found in await finish_all(broker, expected=1)] == [again]


async def test_keys_that_cannot_be_read_are_refused_with_the_remedy(broker):
    await broker.publish(one())
    async with broker._ends.current().uniques.taken(broker._names_of("default")) as keys:
        await keys._page.write(b"[]")

    with pytest.raises(BrokerRefused, match=r"chicory\.unique\.default cannot be read .* delete that queue"):
        await broker.publish(one())
    await finish_all(broker, expected=1)
