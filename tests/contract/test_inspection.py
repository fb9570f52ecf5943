"""Looking inside: what is in a queue, and who works on it, read from the broker."""

import os
import socket
from datetime import UTC, datetime

import pytest
import trio

from chicory import Chicory, Worker
from chicory.config import evolve
from chicory.outcome import Done
from chicory.testing import running_worker
from chicory.types import TaskState
from tests.contract.harness import bury, message, receive, settle, worker
from tests.servers import free_port


@pytest.fixture
def app(harness):
    app = Chicory(harness.broker, harness.backend)

    @app.task(name="nap")
    async def nap(seconds: float) -> None:
        await trio.sleep(seconds)

    return app


async def until(fact):
    with trio.fail_after(10):
        while not await fact():
            await trio.sleep(0.02)


async def test_each_place_of_a_queue_is_counted(broker):
    await bury(broker, message())
    await broker.publish_many([message() for _ in range(3)])
    await broker.publish(message(), delay=100)
    await broker.publish(message(), "other")

    async with worker(broker) as consumer:
        deliveries = await receive(consumer, 2)
        counts = await broker.get_queue_size(), await broker.get_pending_count(), await broker.get_dlq_count()
        assert counts == (1, 2, 1)
        await settle(consumer, deliveries, Done(None))
        assert await broker.get_pending_count() == 0
    assert await broker.get_queue_size("other") == 1


async def test_workers_of_a_queue_are_counted_busy_or_not(app):
    broker = app.broker
    assert await broker.get_consumer_count() == 0
    async with running_worker(app, shutdown_timeout=1.0) as busy:
        await app.tasks["nap"].delay(1000)
        await busy.busy()

        async def both():
            return await broker.get_consumer_count() == 2

        async with running_worker(app, queues=["default", "other"]):
            await until(both)
            assert await broker.get_consumer_count("other") == 1
        busy.hurry()
    await broker.purge_queue()

    async def none():
        return await broker.get_consumer_count() == 0

    await until(none)


async def test_workers_are_listed_with_what_they_do(app):
    began = datetime.now(UTC)
    async with running_worker(app, concurrency=3, heartbeat_interval=1, shutdown_timeout=1.0) as busy:
        await app.tasks["nap"].delay(1000)
        await busy.busy()
        async with running_worker(app, queues=["other", "default"], name="idle:1"):

            async def both():
                listed = await app.backend.get_active_workers()
                return [one.running for one in listed] in ([0, 1], [1, 0])

            await until(both)
            listed = {one.name: one for one in await app.backend.get_active_workers()}
            assert listed.keys() == {busy.name, "idle:1"}
            one = listed[busy.name]
            assert (one.host, one.pid) == (socket.gethostname(), os.getpid())
            assert (one.queues, one.concurrency, one.running) == (["default"], 3, 1)
            assert began <= one.since <= datetime.now(UTC)
            assert set(listed["idle:1"].queues) == {"other", "default"}
            assert await app.broker.get_active_workers() == sorted(listed.values(), key=lambda one: one.name)
        busy.hurry()

    async def none():
        return await app.backend.get_active_workers() == []

    await until(none)
    await app.broker.purge_queue()


async def test_without_workers_none_is_listed(app):
    assert await app.backend.get_active_workers() == []


async def test_what_waits_is_purged_and_counted(broker):
    """And what is delayed only where that is wanted; what is dead or held stays."""
    await bury(broker, message())
    async with worker(broker) as consumer:
        await broker.publish(message())
        held = await receive(consumer, 1)
        await broker.publish_many([message() for _ in range(5)])
        await broker.publish(message(), delay=100)
        await broker.publish(message(), "other")

        assert await broker.purge_queue(delayed=False) == 5
        sizes = await broker.get_queue_sizes()
        assert (sizes.ready, sizes.delayed, sizes.delivered, sizes.dead) == (0, 1, 1, 1)
        assert await broker.purge_queue() == 1
        assert await broker.purge_queue() == 0
        assert await settle(consumer, held, Done(None)) == [True]

    assert (await broker.counters())["purged"] == 6
    assert await broker.get_queue_size("other") == 1


async def test_many_are_purged_however_many_there_are(broker):
    await broker.publish_many([message() for _ in range(600)])
    await broker.publish_many([message(eta=datetime(2999, 1, 1, tzinfo=UTC)) for _ in range(300)])

    assert await broker.purge_queue() == 900


@pytest.mark.needs("joining")
async def test_whoever_waits_for_a_purged_task_is_told(broker, backend):
    ready, delayed, cancelled = message(), message(), message()
    await broker.publish_many([ready, cancelled])
    await broker.publish(delayed, delay=100)
    await broker.cancel(cancelled.id)
    got = {}

    async def wait(one):
        got[one.id] = (await backend.wait(one.id)).state

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for one in (ready, delayed):
                nursery.start_soon(wait, one)
            await trio.sleep(0.1)
            assert await broker.purge_queue() == 3

    assert got == {ready.id: TaskState.UNKNOWN, delayed.id: TaskState.UNKNOWN}
    assert (await backend.fetch(cancelled.id)).state is TaskState.CANCELLED


async def test_a_broker_that_answers_is_healthy(broker):
    health = await broker.healthcheck()

    assert health
    assert health.detail == await broker.ping()
    assert 0 <= health.seconds < 5


@pytest.mark.parametrize("url", ["redis://127.0.0.1", "amqp://127.0.0.1"])
async def test_one_that_does_not_says_why(url):
    app = Chicory(f"{url}:{free_port()}")
    try:
        health = await app.broker.healthcheck()
    finally:
        await app.aclose()

    assert not health
    assert "127.0.0.1" in health.detail


async def test_a_worker_tells_how_it_is(app):
    app = Chicory(app.broker, app.backend)

    @app.task
    async def nap(seconds: float) -> None:
        await trio.sleep(seconds)

    worker = Worker(app, evolve(app.config.worker, concurrency=2, prefetch=1, shutdown_timeout=1.0))
    assert not await worker.healthcheck()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(worker.start)
            assert await worker.healthcheck()
            await nap.delay(0)
            await worker.settled(1)
            stats = worker.get_stats()
            assert (stats["state"], stats["running"], stats["held"], stats["settled"], stats["done"]) == (
                "working",
                0,
                0,
                1,
                1,
            )
            worker.stop()
            assert (await worker.healthcheck()).detail == "stopping"
