"""Cancelling tasks on every broker that can, with workers of other apps: queued, delayed, running, and too late."""

from contextlib import asynccontextmanager

import pytest
import trio

from chicory import Chicory, RetryPolicy, TaskContext, TaskState
from chicory.brokers.base import Settlement
from chicory.outcome import Dead, Done, Failed, Release, RetryIn
from chicory.testing import running_worker
from chicory.types import ResultRecord
from chicory.wire import pack_record
from tests.contract.conftest import KINDS
from tests.contract.harness import OOPS, message, receive, settle, worker

CANCELLED = pack_record(ResultRecord(TaskState.CANCELLED, worker="host:1"))


@pytest.fixture(params=[*KINDS, "cluster"])
def kind(request):
    return request.param


@pytest.fixture
def app(harness):
    app = Chicory(harness.broker, harness.backend)
    app.ran = []

    @app.task(name="nap", retry_policy=RetryPolicy(max_retries=3))
    async def nap(seconds: float) -> str:
        app.ran.append(seconds)
        await trio.sleep(seconds)
        return "rested"

    @app.task(name="dig")
    def dig(context: TaskContext) -> None:
        app.ran.append("dig")
        while True:
            context.checkpoint()

    return app


@asynccontextmanager
async def working(app, **settings):
    with trio.fail_after(20):
        async with running_worker(app, **{"shutdown_timeout": 1.0, **settings}) as worker:
            yield worker


async def test_what_is_queued_or_delayed_is_never_started(app, harness):
    nap = app.tasks["nap"]
    kept, queued, delayed = await nap.delay(0), await nap.delay(0), await nap.options(delay=0.3).delay(0)

    assert await queued.cancel()
    assert await app.cancel(delayed.id)
    assert [await one.state() for one in (kept, queued, delayed)] == [
        TaskState.PENDING,
        TaskState.CANCELLED,
        TaskState.CANCELLED,
    ]
    assert (await queued.wait(timeout=1)).state is TaskState.CANCELLED

    async with working(app) as worker:
        await worker.settled(3)
    assert app.ran == [0]
    assert await kept.get() == "rested"
    assert (await app.broker.counters())["failed"] == 2
    if "joining" not in harness.cannot:
        # Who cancelled it knew less of it than its worker.
        assert (await queued.info()).worker is not None


@pytest.mark.parametrize("task", ["nap", "dig"])
async def test_what_runs_is_reached_by_push(app, task):
    async with working(app) as worker:
        result = await (app.tasks["nap"].delay(1000) if task == "nap" else app.tasks["dig"].delay())
        await worker.busy()
        while not app.ran:
            await trio.sleep(0.01)
        began = trio.current_time()

        assert await result.cancel()
        assert await result.state() is TaskState.CANCELLED
        await worker.settled(1)
        assert trio.current_time() - began < 5

    assert await result.state() is TaskState.CANCELLED
    assert (await app.broker.get_dlq_count(), (await app.broker.counters())["failed"]) == (0, 1)


async def test_a_worker_that_begins_to_read_later_knows_what_was_cancelled_before(app):
    nap = app.tasks["nap"]
    async with working(app, concurrency=1, prefetch=0) as worker:
        running = await nap.delay(0.5)
        await worker.busy()
        # While it reads nothing.
        results = await app.publish_many([nap.message(0) for _ in range(5)])
        assert all([await one.cancel() for one in results[:4]])
        assert await results[4].get() == "rested"
        assert await running.get() == "rested"
        await worker.settled(6)

    assert app.ran == [0.5, 0]


async def test_what_is_finished_stays_what_it_is(app):
    async with working(app) as worker:
        result = await app.tasks["nap"].delay(0)
        assert await result.get() == "rested"
        assert not await result.cancel()
        assert await result.state() is TaskState.SUCCESS
        late = await app.tasks["nap"].options(delay=0.2).delay(0)
        assert [await late.cancel(), await late.cancel()] == [True, True]
        await worker.settled(2)


@pytest.mark.parametrize(
    "outcome",
    [
        pytest.param(Done("late"), marks=pytest.mark.needs("settling what is cancelled in one step")),
        Dead(OOPS),
        RetryIn(0, message(), OOPS),
    ],
)
async def test_what_was_settled_too_late_has_been_cancelled(harness, broker, backend, outcome):
    """The worker did not hear of it in time: the broker knows better, and the books close."""
    one = message()
    await broker.publish(one)
    async with worker(broker) as consumer:
        (delivery,) = await receive(consumer, 1)
        assert await broker.cancel(one.id)
        assert await settle(consumer, [delivery], outcome) == [True]

        if "joining" not in harness.cannot:
            assert (await backend.fetch(one.id)).state is TaskState.CANCELLED
        sizes = await broker.get_queue_sizes()
        assert (sizes.ready, sizes.delayed, sizes.delivered, sizes.dead) == (0, 0, 0, 0)
        assert (await broker.counters())["failed"] == 1
        assert one.id not in consumer.cancelled


async def test_what_is_given_back_stays_cancelled_until_it_is_settled(harness, broker, backend):
    one = message()
    await broker.publish(one)
    await broker.cancel(one.id)
    async with worker(broker) as consumer:
        (delivery,) = await receive(consumer, 1)
        assert one.id in consumer.cancelled
        assert await settle(consumer, [delivery], Release("stopping")) == [True]
    async with worker(broker) as consumer:
        (again,) = await receive(consumer, 1)
        assert one.id in consumer.cancelled
        failed = Failed(OOPS, TaskState.CANCELLED)
        assert await consumer.settle([Settlement(again, failed, CANCELLED)]) == [True]
        assert one.id not in consumer.cancelled

    if "joining" not in harness.cannot:
        assert (await backend.fetch(one.id)).worker == "host:1"


async def test_every_consumer_hears_of_it(broker):
    heard = []

    async def listen(consumer):
        while True:
            heard.append((consumer.name, await consumer.heard()))

    with trio.fail_after(10):
        async with worker(broker) as first, worker(broker, "other") as second, trio.open_nursery() as nursery:
            nursery.start_soon(listen, first)
            nursery.start_soon(listen, second)
            await broker.cancel("before")
            while len({name for name, _ in heard}) < 2:
                await trio.sleep(0.01)
            heard.clear()
            await broker.cancel("after")
            while len(heard) < 2:
                await trio.sleep(0.01)
            assert sorted(heard) == sorted([(first.name, {"after"}), (second.name, {"after"})])
            nursery.cancel_scope.cancel()


async def test_a_task_that_was_never_sent_may_be_cancelled(app):
    assert await app.cancel("never-sent")
