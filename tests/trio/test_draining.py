"""How a worker ends: nothing is lost, and nobody waits longer than was said."""

import logging
import threading

import pytest
import trio

from chicory import DeliveryMode, TaskContext, TaskState
from chicory.config import evolve
from chicory.testing import running_worker
from chicory.worker.worker import Worker
from tests.trio.books import close_books


def sleeper(app, seen=None):
    @app.task(name="sleep")
    async def sleep(seconds: float) -> str:
        try:
            await trio.sleep(seconds)
        finally:
            if seen is not None:
                seen.append(trio.current_time())
        return "rested"

    return sleep


async def waiting(app, queue="default"):
    """What is ready, as a worker would get it: retries, count."""
    async with app.broker.consumer([queue], name="looks", limit=100) as consumer:
        sizes = await app.broker.get_queue_sizes(queue)
        found = await consumer.receive(100) if sizes.ready else []
    return [(delivery.message.retries, delivery.count) for delivery in found]


async def test_what_runs_may_finish_within_its_time(autojump_clock, app, books):
    sleep = sleeper(app)

    async with running_worker(app, shutdown_timeout=30) as worker:
        result = await sleep.delay(20)
        await worker.busy()
        asked = trio.current_time()
        worker.stop()

    assert trio.current_time() - asked == pytest.approx(20, abs=1)
    assert await result.get() == "rested"


async def test_what_cannot_finish_is_given_back_uncharged(autojump_clock, app):
    ends = []
    sleep = sleeper(app, ends)

    async with running_worker(app, shutdown_timeout=30) as worker:
        result = await sleep.delay(500)
        await worker.busy()
        asked = trio.current_time()
        worker.stop()

    assert ends[0] - asked == pytest.approx(30, abs=1)
    # It had started, and states only move forward.
    assert await result.state() is TaskState.STARTED
    assert await waiting(app) == [(0, 1)]
    assert worker.report()["release"] == 1


async def test_what_has_not_started_goes_back_at_once(autojump_clock, app, books):
    sleep = sleeper(app)
    await app.publish_many([sleep.message(20) for _ in range(5)])

    async with running_worker(app, concurrency=1, prefetch=4) as worker:
        await worker.busy()
        worker.stop()
        asked = trio.current_time()
        await worker.settled(4)
        assert trio.current_time() == asked
        assert (await app.broker.get_queue_sizes()).ready == 4

    assert worker.report()["done"] == 1


async def test_hurrying_does_not_wait(autojump_clock, app, books):
    sleep = sleeper(app)
    await sleep.send(500)

    async with running_worker(app, shutdown_timeout=400) as worker:
        await worker.busy()
        asked = trio.current_time()
        worker.stop()
        await trio.sleep(1)
        worker.hurry()

    assert trio.current_time() - asked < 5
    assert (await app.broker.get_queue_sizes()).ready == 1


@pytest.mark.parametrize(("graces", "seconds"), [([10], 10), ([50], 30), ([20, 5], 5), ([5, 20], 5), ([0], 0)])
async def test_the_shortest_grace_that_was_asked_for_counts(autojump_clock, app, books, graces, seconds):
    sleep = sleeper(app)
    await sleep.send(500)

    async with running_worker(app, shutdown_timeout=30) as worker:
        await worker.busy()
        asked = trio.current_time()
        for grace in graces:
            worker.stop(grace)

    assert trio.current_time() - asked == pytest.approx(seconds, abs=0.1)
    assert (await app.broker.get_queue_sizes()).ready == 1


async def test_a_grace_that_was_named_before_the_worker_joined_counts(autojump_clock, app):
    await sleeper(app).send(500)
    worker = Worker(app, clock=trio.current_time)

    worker.stop(1)
    await worker.run()

    assert trio.current_time() < 2


async def test_the_end_of_each_task_that_ran_at_the_stop_is_told(autojump_clock, app):
    sleep = sleeper(app)

    @app.task(name="stubborn")
    async def stubborn() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(1000)

    told = []
    messages = {
        "over": sleep.message(1),
        "finished": sleep.message(10),
        "returned": sleep.message(500),
        "killed": stubborn.message(),
        "waits": sleep.message(1),
    }
    config = evolve(app.config.worker, concurrency=4, prefetch=1, shutdown_timeout=20)
    worker = Worker(app, config, clock=trio.current_time, leave=lambda _: told.extend(worker.drained()))
    await app.publish_many([messages[key] for key in ("finished", "returned", "killed", "over", "waits")])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await worker.settled(2)
        worker.stop()

    assert {one["id"]: (one["name"], one["end"]) for one in told} == {
        messages["finished"].id: ("sleep", "finished"),
        messages["returned"].id: ("sleep", "returned"),
        messages["killed"].id: ("stubborn", "killed"),
    }


async def test_cancelling_the_worker_gives_back_too(autojump_clock, app, books):
    sleep = sleeper(app)
    await app.publish_many([sleep.message(500) for _ in range(5)])
    worker = Worker(app, evolve(app.config.worker, concurrency=2, prefetch=1), clock=trio.current_time)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await worker.busy(2)
        nursery.cancel_scope.cancel()

    assert await waiting(app) == [(0, 1)] * 5


async def test_a_stop_while_idle_leaves_nothing_behind(autojump_clock, app, books):
    sleep = sleeper(app)

    for _ in range(20):
        async with running_worker(app), trio.open_nursery() as nursery:
            nursery.start_soon(sleep.send, 0)

    async with running_worker(app) as worker:
        with trio.move_on_after(100):
            await trio.sleep_forever()
    sizes = await app.broker.get_queue_sizes()

    assert (sizes.ready, sizes.delivered) == (0, 0)
    assert worker.report()["left"] == 0


async def test_clean_up_has_its_grace_and_no_more(autojump_clock, app):
    stuck = []

    @app.task
    async def stubborn() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(1000)

    async with running_worker(app) as other:
        worker = Worker(
            app,
            evolve(app.config.worker, queue="apart", shutdown_timeout=10, cancel_grace=5),
            clock=trio.current_time,
            leave=lambda count: stuck.append((count, trio.current_time())),
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run)
            await stubborn.options(queue="apart").send()
            await worker.busy()
            asked = trio.current_time()
            worker.stop()
        other.stop()

    ((count, left_at),) = stuck
    assert count == 1
    assert left_at - asked == pytest.approx(15, abs=1)


async def test_a_thread_is_waited_for_and_its_delivery_is_not_given_back_meanwhile(autojump_clock, app, books, caplog):
    go, started = threading.Event(), threading.Event()
    while_stopping = []

    @app.task(name="dig")
    def dig() -> str:
        started.set()
        go.wait(20)
        return "done"

    def leave(count):
        while_stopping.append(count)
        go.set()

    worker = Worker(
        app,
        evolve(app.config.worker, shutdown_timeout=0.05, cancel_grace=0.05),
        clock=trio.current_time,
        leave=leave,
    )
    result = await dig.delay()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await worker.busy()
        await trio.to_thread.run_sync(started.wait)
        worker.stop()

    assert while_stopping == [1]
    assert await result.get() == "done"
    assert worker.report() == {"fetched": 1, "settled": 1, "done": 1, "stale": 0, "left": 0}


async def test_a_thread_that_looks_ends_when_cancelled(autojump_clock, app):
    started = threading.Event()

    @app.task(name="dig")
    def dig(context: TaskContext) -> None:
        started.set()
        while True:
            context.checkpoint()

    await dig.send()
    async with running_worker(app, shutdown_timeout=0, cancel_grace=1000) as worker:
        await worker.busy()
        await trio.to_thread.run_sync(started.wait)
        worker.stop()

    assert await waiting(app) == [(0, 1)]


async def test_at_most_once_is_not_given_back_once_it_has_started(autojump_clock, app, books):
    @app.task(delivery_mode=DeliveryMode.AT_MOST_ONCE)
    async def metric() -> None:
        await trio.sleep(500)

    results = await app.publish_many([metric.message() for _ in range(3)])
    async with running_worker(app, concurrency=1, prefetch=2, shutdown_timeout=10) as worker:
        await worker.busy()
        worker.stop()

    states = [await result.state() for result in results]
    assert sorted(states) == [TaskState.DEAD_LETTERED, TaskState.PENDING, TaskState.PENDING]
    assert (await app.broker.get_queue_sizes()).ready == 2


async def test_the_end_is_told_with_its_counts(autojump_clock, app, caplog):
    caplog.set_level(logging.INFO, "chicory.worker")
    sleep = sleeper(app)

    async with running_worker(app) as worker:
        await sleep.send(1)
        await worker.settled(1)

    assert "ended: fetched=1 settled=1 done=1 stale=0 left=0" in caplog.messages[-1]
    await close_books(app)
