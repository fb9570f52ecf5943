"""What virtual time and the absence of a line let us see in the memory broker alone."""

import math
from datetime import UTC, datetime, timedelta

import pytest
import trio
import trio.testing

from chicory.backends.memory import MemoryBackend
from chicory.brokers.base import Delivery, Settlement
from chicory.brokers.memory import MemoryBroker
from chicory.clock import unix_now
from chicory.errors import LeaseLost, QueueFull, UsageError
from chicory.ids import new_id
from chicory.outcome import Done, RetryIn
from chicory.types import QueueSizes, TaskMessage, TaskState
from tests.contract.cancelling import cancelled_at, every_checkpoint

DAY = 86400.0


def message(**fields):
    return TaskMessage(**{"name": "work", **fields})


async def keep(broker, *, until):
    """A scheduler, until the virtual clock says *until*."""
    with trio.CancelScope(deadline=until):
        async with broker.keeper(["default"]) as keeper:
            while True:
                wait = await keeper.promote()
                with trio.move_on_after(math.inf if wait is None else wait):
                    await keeper.changed()


async def test_m3_a_task_may_run_for_days_under_a_lease_of_seconds(autojump_clock):
    broker = MemoryBroker(lease=30)
    await broker.publish(message())

    async with broker.consumer(["default"], name="a", limit=1) as worker, broker.keeper(["default"]) as keeper:
        deliveries = await worker.receive(1)
        for _ in range(int(2 * DAY / 5)):
            await trio.sleep(5)
            assert await worker.renew()
            assert await keeper.reclaim() == 0

        assert await worker.settle([Settlement(deliveries[0], Done(None))]) == [True]


async def test_m3_the_lease_ends_when_it_is_said_to(autojump_clock):
    broker = MemoryBroker(lease=30)
    await broker.publish(message())

    async with broker.consumer(["default"], name="a", limit=1) as worker, broker.keeper(["default"]) as keeper:
        await worker.receive(1)
        await trio.sleep(29.9)
        assert await keeper.reclaim() == 0
        await trio.sleep(0.2)
        assert await keeper.reclaim() == 1
        assert await worker.renew() is False


async def test_a_lapsed_lease_that_nobody_took_can_still_be_renewed(autojump_clock):
    broker = MemoryBroker(lease=30)
    await broker.publish(message())

    async with broker.consumer(["default"], name="a", limit=1) as worker, broker.keeper(["default"]) as keeper:
        deliveries = await worker.receive(1)
        await trio.sleep(100)
        assert await worker.renew()
        assert await keeper.reclaim() == 0
        assert await worker.settle([Settlement(deliveries[0], Done(None))]) == [True]


async def test_a_worker_that_waits_is_told_when_it_was_taken_for_dead(autojump_clock):
    broker = MemoryBroker(lease=30)

    async with broker.consumer(["default"], name="a", limit=1) as worker, trio.open_nursery() as nursery:

        async def wait():
            with pytest.raises(LeaseLost, match="another name"):
                await worker.receive(1)

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        async with broker.keeper(["default"]) as keeper:
            await keeper.reclaim(dead="a")


async def test_m9_a_year_is_not_a_second_too_short(autojump_clock):
    broker = MemoryBroker()
    began = trio.current_time()
    await broker.publish(message(), delay=365 * DAY)
    await broker.publish(message(eta=datetime.fromtimestamp(unix_now(), UTC) + timedelta(days=100)))
    arrived = []

    async with broker.consumer(["default"], name="a", limit=2) as worker, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: keep(broker, until=began + 366 * DAY))
        for _ in range(2):
            (delivery,) = await worker.receive(1)
            arrived.append(trio.current_time() - began)
            await worker.renew()
            await worker.settle([Settlement(delivery, Done(None))])

    assert arrived == pytest.approx([100 * DAY, 365 * DAY], abs=0.001)


async def test_m8_a_delivery_that_the_worker_does_not_know_of_is_handed_out_again():
    broker = MemoryBroker()
    await broker.publish_many([message(), message()])

    async with broker.consumer(["default"], name="a", limit=2) as worker:
        known, forgotten = await worker.receive(2)

        assert list(await worker.reconcile({known.receipt})) == [forgotten]


async def test_publishing_again_what_is_unfinished_does_nothing_without_a_backend_too():
    broker = MemoryBroker()
    one = message()

    await broker.publish(one)
    await broker.publish(one)
    async with broker.consumer(["default"], name="a", limit=2) as worker:
        (delivery,) = await worker.receive(2)
        await broker.publish(one)
        await worker.settle([Settlement(delivery, RetryIn(0, one, None))])
        await broker.publish(one)
        (delivery,) = await worker.receive(2)
        await worker.settle([Settlement(delivery, Done(None))])

    assert (await broker.get_queue_sizes()).ready == 0
    # Finished and kept by nobody: the same id is a new task.
    await broker.publish(one)
    assert (await broker.get_queue_sizes()).ready == 1


async def test_each_delivery_has_arguments_of_its_own():
    broker = MemoryBroker()
    sent = message(args=[[1]])
    await broker.publish(sent)

    async with broker.consumer(["default"], name="a", limit=1) as worker:
        (delivery,) = await worker.receive(1)
        delivery.message.args[0].append(2)
        async with broker.keeper(["default"]) as keeper:
            await keeper.reclaim(dead="a")
    async with broker.consumer(["default"], name="b", limit=1) as worker:
        (again,) = await worker.receive(1)

    assert again.message.args == sent.args == [[1]]


async def test_two_workers_of_one_name_are_refused():
    broker = MemoryBroker()

    async with broker.consumer(["default"], name="a", limit=1):
        with pytest.raises(UsageError, match="name of its own"):
            async with broker.consumer(["default"], name="a", limit=1):
                pass
    async with broker.consumer(["default"], name="a", limit=1) as worker:
        assert worker.name == "a"


async def test_a_full_queue_still_takes_what_is_due_later(autojump_clock):
    broker = MemoryBroker(max_stream_length=1)
    await broker.publish(message())

    await broker.publish(message(), delay=5)
    with pytest.raises(QueueFull):
        await broker.publish(message())

    await trio.sleep(6)
    async with broker.keeper(["default"]) as keeper:
        assert await keeper.promote() is None
    assert await broker.get_queue_sizes() == QueueSizes(ready=2, delayed=0, delivered=0, dead=0)


def test_what_waits_is_still_there_for_the_next_run():
    broker = MemoryBroker()
    backend = MemoryBackend()
    broker.join(backend)
    one, later = message(), message()

    async def first():
        await broker.publish(one)
        await broker.publish(later, delay=100)

    async def second():
        assert (await backend.fetch(one.id)).state is TaskState.PENDING
        async with broker.keeper(["default"]) as keeper:
            wait = await keeper.promote()
            assert wait is not None
            assert 90 < wait <= 101
        async with broker.consumer(["default"], name="a", limit=5) as worker:
            (delivery,) = await worker.receive(5)
            await worker.settle([Settlement(delivery, Done(None))])

    trio.run(first)
    trio.run(second)


async def test_the_clock_is_unix_time_and_virtual(autojump_clock):
    before = unix_now()
    await trio.sleep(1000)

    assert unix_now() - before == pytest.approx(1000)
    assert abs(before - datetime.now(UTC).timestamp()) < 60


async def test_m12_a_result_lives_as_long_as_it_is_said_to(autojump_clock):
    broker, backend = MemoryBroker(), MemoryBackend(result_ttl=DAY)
    broker.join(backend)
    one, own = message(), message(id="order-17")
    await broker.publish_many([one, own])
    async with broker.consumer(["default"], name="a", limit=5) as worker:
        done = b'{"state":"success","value":1}'
        await worker.settle([Settlement(each, Done(1), done) for each in await worker.receive(5)])

    await trio.sleep(DAY - 1)
    assert (await backend.fetch(one.id)).value == 1
    await trio.sleep(2)

    assert (await backend.fetch(one.id)).state is TaskState.EXPIRED
    # An id that does not tell its age is not remembered.
    assert (await backend.fetch("order-17")).state is TaskState.UNKNOWN
    assert (await backend.fetch(new_id())).state is TaskState.EXPIRED
    assert backend._kept == {}


async def test_nothing_is_left_of_waiters_and_finished_tasks():
    broker, backend = MemoryBroker(), MemoryBackend(result_ttl=0.001)
    broker.join(backend)
    sent = [message() for _ in range(5)]
    await broker.publish_many(sent)

    async with broker.consumer(["default"], name="a", limit=5) as worker, trio.open_nursery() as nursery:
        for one in sent:
            nursery.start_soon(backend.wait, one.id)
        await trio.testing.wait_all_tasks_blocked()
        done = b'{"state":"success"}'
        await worker.settle([Settlement(each, Done(None), done) for each in await worker.receive(5)])
    await trio.sleep(0.01)
    await backend.fetch("x")

    assert (backend._kept, backend._waiting, backend._expiries) == ({}, {}, type(backend._expiries)())
    assert broker._store._unfinished == {}
    assert broker._store.leases == {}


async def test_a_purged_task_is_no_longer_waited_for():
    broker, backend = MemoryBroker(), MemoryBackend()
    broker.join(backend)
    one = message()
    await broker.publish(one)

    async with trio.open_nursery() as nursery:

        async def wait():
            assert (await backend.wait(one.id)).state is TaskState.UNKNOWN

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        await broker.purge_queue()


async def test_only_a_memory_broker_is_joined():
    class Elsewhere:
        pass

    assert MemoryBackend().joins(MemoryBroker())
    assert not MemoryBackend().joins(Elsewhere())


async def test_a_cancelled_operation_has_not_happened():
    broker = MemoryBroker()

    async with broker.consumer(["default"], name="a", limit=5) as worker:

        async def publish(turn):
            before = (await broker.counters())["published"]
            cancelled = await cancelled_at(turn, lambda: broker.publish(message()))
            assert (await broker.counters())["published"] == before + (not cancelled)
            return cancelled

        async def receive(turn):
            await broker.publish(message())
            held = []

            async def take():
                held.extend(await worker.receive(1))

            cancelled = await cancelled_at(turn, take)
            # A receive that was cancelled too late has its delivery and says so.
            assert (await broker.get_queue_sizes()).delivered == len(held)
            await worker.settle([Settlement(one, Done(None)) for one in held])
            await broker.purge_queue()
            return cancelled

        async def settle(turn):
            await broker.publish(message())
            (delivery,) = await worker.receive(1)
            cancelled = await cancelled_at(turn, lambda: worker.settle([Settlement(delivery, Done(None))]))
            assert list(await worker.settle([Settlement(delivery, Done(None))])) == [cancelled]
            return cancelled

        for attempt in (publish, receive, settle):
            await broker.purge_queue()
            assert [turn async for turn in every_checkpoint(attempt)]


@pytest.mark.parametrize("operation", ["publish", "receive", "settle", "acknowledge", "renew"])
async def test_every_operation_is_a_checkpoint(operation):
    broker = MemoryBroker()
    await broker.publish_many([message(), message()])

    async with broker.consumer(["default"], name="a", limit=5) as worker:
        deliveries: list[Delivery] = list(await worker.receive(1))
        with trio.testing.assert_checkpoints():
            match operation:
                case "publish":
                    await broker.publish(message())
                case "receive":
                    await worker.receive(1)
                case "settle":
                    await worker.settle([])
                case "acknowledge":
                    await worker.acknowledge(deliveries)
                case "renew":
                    await worker.renew()
