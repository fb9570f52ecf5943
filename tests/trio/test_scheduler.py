"""The scheduler: on time, patient, and alone or in company."""

from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from chicory.errors import BrokerUnavailable
from chicory.scheduler.scheduler import Scheduler
from chicory.testing import running_worker
from chicory.worker.worker import Worker


def noting(app):
    ran = []

    @app.task(name="note")
    async def note(word: str) -> None:
        ran.append((word, trio.current_time()))

    return note, ran


async def test_nothing_runs_early_and_all_that_is_due_runs(autojump_clock, app, books):
    note, ran = noting(app)
    delays = [0.001, 0.5, 1, 1, 59.9, 7200]

    async with running_worker(app) as worker:
        start = trio.current_time()
        for delay in delays:
            await note.options(delay=delay).send(str(delay))
        await worker.settled(len(delays))

    for word, at in ran:
        # Unix seconds as floats are this coarse.
        assert float(word) - 1e-6 <= at - start < float(word) + 0.02


async def test_a_message_due_sooner_wakes_a_sleeping_scheduler(autojump_clock, app, books):
    note, ran = noting(app)

    async with running_worker(app) as worker:
        await note.options(delay=3600).send("late")
        await trio.sleep(3)
        start = trio.current_time()
        await note.options(delay=0.25).send("soon")
        await worker.settled(1)

    assert ran[0][1] - start == pytest.approx(0.25, abs=0.02)


async def test_thousands_due_at_once_are_run_at_once(autojump_clock, app, books):
    note, ran = noting(app)
    later = note.options(delay=100)
    await app.publish_many([later.message(str(number)) for number in range(2000)])

    async with running_worker(app, concurrency=500) as one, running_worker(app, concurrency=500) as other:
        start = trio.current_time()
        await trio.sleep_until(start + 101)
        assert one.report()["settled"] + other.report()["settled"] == 2000

    assert len({word for word, _ in ran}) == len(ran) == 2000


async def test_the_deliveries_of_a_silent_worker_are_given_back_when_its_lease_is_over(autojump_clock, app, books):
    note, ran = noting(app)
    await note.send("again")
    async with app.broker.consumer(["default"], name="silent", limit=1) as consumer:
        (delivery,) = await consumer.receive(1)

    start = trio.current_time()
    async with running_worker(app) as worker:
        await worker.settled(1)

    assert delivery.count == 1
    assert 30 <= ran[0][1] - start <= 36


async def test_the_deliveries_of_a_worker_reported_dead_are_given_back_at_once(autojump_clock, app, books):
    note, _ = noting(app)
    await app.publish_many([note.message(str(number)) for number in range(600)])
    async with app.broker.consumer(["default"], name="dead", limit=600) as consumer:
        assert len(await consumer.receive(600)) == 600
    scheduler = Scheduler(app.broker, ["default"])
    worker = Worker(app, clock=trio.current_time, scheduler=False)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.run)
        nursery.start_soon(worker.run)
        await trio.sleep(2)
        start = trio.current_time()
        scheduler.died("dead", "killed by signal 9")
        await worker.settled(600)
        assert trio.current_time() - start < 1
        nursery.cancel_scope.cancel()

    assert scheduler.reclaimed == 600


async def test_those_who_are_known_to_live_keep_what_they_hold_without_a_word(autojump_clock, app, books):
    note, _ = noting(app)
    await note.send("held")
    scheduler = Scheduler(app.broker, ["default"])

    async with app.broker.consumer(["default"], name="busy", limit=1) as consumer, trio.open_nursery() as nursery:
        await consumer.receive(1)
        nursery.start_soon(scheduler.run)
        scheduler.live(["busy", "nobody"])
        await trio.sleep(500)
        assert scheduler.reclaimed == 0
        assert await consumer.renew()
        scheduler.live([])
        gone = trio.current_time()
        while not scheduler.reclaimed:
            await trio.sleep(1)
        assert 30 <= trio.current_time() - gone <= 36
        nursery.cancel_scope.cancel()


async def test_a_dead_worker_is_not_kept_alive_by_an_older_word(autojump_clock, app, books):
    note, _ = noting(app)
    await note.send("held")
    scheduler = Scheduler(app.broker, ["default"])

    async with app.broker.consumer(["default"], name="dying", limit=1) as consumer, trio.open_nursery() as nursery:
        await consumer.receive(1)
        nursery.start_soon(scheduler.run)
        scheduler.live(["dying"])
        await trio.sleep(100)
        scheduler.died("dying", "killed")
        with trio.fail_after(1):
            await scheduler.buried()
        assert scheduler.reclaimed == 1
        assert not await consumer.renew()
        nursery.cancel_scope.cancel()


async def test_a_scheduler_that_was_stopped_with_its_workers_takes_nothing_from_them(autojump_clock, app, books):
    note, _ = noting(app)
    await note.send("held")
    scheduler = Scheduler(app.broker, ["default"])

    async with (
        app.broker.consumer(["default"], name="stopped too", limit=1) as consumer,
        trio.open_nursery() as nursery,
    ):
        await consumer.receive(1)
        nursery.start_soon(scheduler.run)
        scheduler.live(["stopped too"])
        await trio.sleep(2)
        autojump_clock.jump(100)
        await trio.sleep(10)
        assert await consumer.renew()
        nursery.cancel_scope.cancel()

    assert scheduler.reclaimed == 0


async def test_one_keeper_is_kept_over_an_outage_because_it_remembers_it(autojump_clock, app, monkeypatch, books):
    kept = []

    class Sometimes:
        def __init__(self, keeper):
            self.keeper, self.lease, self.changed = keeper, keeper.lease, keeper.changed
            kept.append(self)

        async def reclaim(self, limit, **which):
            if trio.current_time() - start < 40:
                raise BrokerUnavailable("cut")
            return await self.keeper.reclaim(limit, **which)

        async def promote(self, limit):
            return await self.keeper.promote(limit)

    @asynccontextmanager
    async def sometimes(queues):
        async with keeper(queues) as found:
            yield Sometimes(found)

    keeper, start = app.broker.keeper, trio.current_time()
    monkeypatch.setattr(app.broker, "keeper", sometimes)
    scheduler = Scheduler(app.broker, ["default"])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.run)
        await scheduler.working()
        nursery.cancel_scope.cancel()

    assert len(kept) == 1


async def test_a_scheduler_outlives_an_outage(autojump_clock, app, books, monkeypatch):
    note, ran = noting(app)
    broken = True
    keeper = app.broker.keeper

    def sometimes(queues):
        if broken:
            raise BrokerUnavailable("cut")
        return keeper(queues)

    monkeypatch.setattr(app.broker, "keeper", sometimes)
    async with running_worker(app) as worker:
        await note.options(delay=10).send("x")
        await trio.sleep(60)
        assert ran == []
        broken = False
        await worker.settled(1)

    assert len(ran) == 1


async def test_who_is_stopped_while_the_broker_fails_just_stops(autojump_clock, app, monkeypatch):
    answered = trio.Event()

    class Failing:
        def __init__(self, keeper):
            self.keeper, self.lease, self.changed = keeper, keeper.lease, keeper.changed

        async def reclaim(self, limit, **which):
            await answered.wait()
            raise BrokerUnavailable("cut")

    @asynccontextmanager
    async def failing(queues):
        async with keeper(queues) as found:
            yield Failing(found)

    keeper = app.broker.keeper
    monkeypatch.setattr(app.broker, "keeper", failing)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Scheduler(app.broker, ["default"]).run)
        await trio.testing.wait_all_tasks_blocked()
        answered.set()
        nursery.cancel_scope.cancel()


async def test_a_broker_that_keeps_itself_leaves_nothing_to_wait_for(autojump_clock, app, monkeypatch):
    monkeypatch.setattr(app.broker, "keeper", lambda queues: None)
    scheduler = Scheduler(app.broker, ["default"])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.run)
        scheduler.live(["a"])
        scheduler.died("a", "killed")
        with trio.fail_after(1):
            await scheduler.buried()
        nursery.cancel_scope.cancel()
