"""A worker whose broker fails: it trusts its lease no longer than it may, and works on when it can."""

from contextlib import asynccontextmanager

import pytest
import trio

from chicory import TaskState
from chicory.app import Chicory
from chicory.backends.memory import MemoryBackend
from chicory.brokers.memory import MemoryBroker
from chicory.config import evolve
from chicory.errors import BrokerRefused, BrokerUnavailable
from chicory.scheduler.scheduler import Scheduler
from chicory.testing import running_worker
from chicory.worker.worker import Worker


class FlakyBroker(MemoryBroker):
    """A memory broker behind a line that can be cut; *error* is what whoever uses it meets, None is a good line."""

    error = None
    reconciled = 0
    hides = False
    lost = False

    @asynccontextmanager
    async def consumer(self, queues, *, name, limit):
        if self.error:
            raise self.error
        async with super().consumer(queues, name=name, limit=limit) as consumer:
            yield FlakyConsumer(self, consumer)


class FlakyConsumer:
    def __init__(self, broker, consumer):
        self._broker = broker
        self._consumer = consumer
        self.name = consumer.name
        self.lease = consumer.lease
        self.now = consumer.now

    async def _call(self, method, *args):
        await trio.lowlevel.checkpoint()
        if self._broker.error:
            raise self._broker.error
        return await method(*args)

    async def receive(self, limit):
        found = await self._call(self._consumer.receive, limit)
        if self._broker.hides:
            self._broker.hides = False
            raise BrokerUnavailable("the reply was lost")
        return found

    async def acknowledge(self, deliveries):
        return await self._call(self._consumer.acknowledge, deliveries)

    async def settle(self, settlements):
        return await self._call(self._consumer.settle, settlements)

    async def renew(self):
        held = await self._call(self._consumer.renew)
        return held and not self._broker.lost

    async def reconcile(self, held):
        self._broker.reconciled += 1
        return await self._call(self._consumer.reconcile, held)


@pytest.fixture
def broker():
    return FlakyBroker(lease=30)


@pytest.fixture
def app(broker):
    return Chicory(broker, MemoryBackend())


async def test_a_slow_task_keeps_its_lease(autojump_clock, app, books):
    runs = []

    @app.task
    async def slow() -> None:
        runs.append(True)
        await trio.sleep(1000)

    async with running_worker(app), running_worker(app):
        await (await slow.delay()).get()

    assert runs == [True]


@pytest.mark.parametrize("seconds", [6, 15])
async def test_a_short_outage_interrupts_nothing(autojump_clock, app, broker, books, seconds, caplog):
    ends = []

    @app.task
    async def slow(seconds: float) -> float:
        await trio.sleep(seconds)
        ends.append(seconds)
        return seconds

    async with running_worker(app, concurrency=3) as worker:
        results = [await slow.delay(seconds) for seconds in (5, 100)]  # one ends while the broker is away
        await worker.busy(2)
        broker.error = BrokerUnavailable("cut")
        await trio.sleep(seconds)
        broker.error = None
        back = trio.current_time()
        fresh = await slow.delay(0)
        await fresh.get()
        assert trio.current_time() - back <= 2

        assert [await result.get() for result in results] == [5, 100]

    assert sorted(ends) == [0, 5, 100]
    told = [message for message in caplog.messages if "the broker" in message]
    assert ["fails" in told[0], "answers again" in told[1], len(told)] == [True, True, 2]


async def test_a_long_outage_cancels_what_runs_and_the_lease_is_used_again(autojump_clock, app, broker, books):
    ends = []

    @app.task
    async def slow() -> None:
        try:
            await trio.sleep(1000)
        finally:
            ends.append(trio.current_time())

    async with running_worker(app, scheduler=False) as worker:
        first = await slow.delay()
        await worker.busy()
        last_renewal = trio.current_time()
        broker.error = BrokerUnavailable("cut")
        await trio.sleep(60)
        # Between two thirds of the lease and nine tenths of it.
        assert 20 <= ends[0] - last_renewal <= 27
        assert worker.running == 0
        broker.error = None
        await worker.busy()
        assert await first.state() is TaskState.STARTED
        await first.get()

    assert len(ends) == 2
    assert worker.report()["release"] == 1


async def test_a_lease_in_doubt_that_is_lost_in_the_end_leaves_no_doubt_about_the_next(autojump_clock, app, broker):
    @app.task
    async def quick() -> int:
        return 1

    async with running_worker(app, scheduler=False) as worker:
        broker.error = BrokerUnavailable("cut")
        await trio.sleep(25)
        assert worker.state == "away"
        broker.error, broker.lost = None, True
        await trio.sleep(1)
        broker.lost = False

        result = await quick.delay()
        with trio.fail_after(10):
            assert await result.get() == 1
        assert worker.state == "working"


async def test_what_may_not_go_on_must_leave_at_nine_tenths(autojump_clock, app, broker):
    left = []

    @app.task
    async def stubborn() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(50)

    worker = Worker(
        app, clock=trio.current_time, leave=lambda count: left.append((count, trio.current_time())), scheduler=False
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await stubborn.send()
        await worker.busy()
        start = trio.current_time()
        broker.error = BrokerUnavailable("cut")
        await trio.sleep(40)
        broker.error = None
        worker.stop()

    assert left[0][0] == 1
    assert left[0][1] - start == pytest.approx(27, abs=2)


async def test_with_finish_what_runs_goes_on_but_nothing_new_starts(autojump_clock, app, broker, books):
    started = []

    @app.task
    async def slow(number: int) -> None:
        started.append(number)
        await trio.sleep(25)

    await app.publish_many([slow.message(number) for number in range(2)])
    async with running_worker(app, concurrency=1, prefetch=1, scheduler=False, on_lease_loss="finish") as worker:
        await worker.busy()
        broker.error = BrokerUnavailable("cut")
        await trio.sleep(40)
        assert started == [0]
        broker.error = None
        await worker.settled(2)

    assert started == [0, 1]
    assert worker.report()["done"] == 2


async def test_a_worker_taken_for_dead_cancels_and_joins_again_under_another_name(autojump_clock, app, broker, caplog):
    runs = []

    @app.task
    async def slow() -> str:
        runs.append(trio.current_time())
        await trio.sleep(50)
        return "done"

    async with running_worker(app, name="first") as worker:
        result = await slow.delay()
        await worker.busy()
        async with broker.keeper(["default"]) as keeper:
            assert await keeper.reclaim(dead="first", why="a rumour") == 1
        assert await result.get() == "done"

    assert len(runs) == 2
    assert worker.report()["done"] == 1
    assert any("first has lost its lease" in message for message in caplog.messages)


@pytest.mark.parametrize("seconds", [21, 26, 28, 45, 1000])
async def test_a_loop_that_stood_still_asks_before_it_gives_up_a_lease(autojump_clock, app, broker, books, seconds):
    runs = []

    @app.task
    async def selfish() -> str:
        runs.append(trio.current_time())
        await trio.sleep(1)
        if len(runs) == 1:
            autojump_clock.jump(seconds)  # as a C call that holds the interpreter
        await trio.sleep(50)
        return "done"

    scheduler = Scheduler(broker, ["default"])
    async with running_worker(app, name="first", scheduler=False) as worker, trio.open_nursery() as nursery:
        nursery.start_soon(scheduler.run)
        scheduler.live(["first"])
        result = await selfish.delay()
        assert await result.get() == "done"
        nursery.cancel_scope.cancel()

    assert len(runs) == 1
    assert worker.report()["stale"] == 0
    assert scheduler.reclaimed == 0


async def test_a_loop_that_stood_still_and_was_replaced_cancels_what_runs(autojump_clock, app, broker, books):
    runs = []

    @app.task
    async def selfish() -> str:
        runs.append(trio.current_time())
        if len(runs) == 1:
            autojump_clock.jump(45)
            broker._store.reclaim([broker._store.places("default")], 10, None, "")
            await trio.sleep(50)
        return "done"

    async with running_worker(app, name="first", scheduler=False) as worker:
        result = await selfish.delay()
        assert await result.get() == "done"

    assert runs[1] - runs[0] == pytest.approx(45, abs=3)
    assert worker.report()["stale"] == 1


async def test_a_loop_that_stood_still_without_a_broker_leaves_soon_and_starts_nothing(autojump_clock, app, broker):
    left, started, stood = [], [], trio.Event()

    @app.task
    async def selfish() -> None:
        await trio.sleep(1)
        autojump_clock.jump(45)
        broker.error = BrokerUnavailable("cut")
        stood.set()
        with trio.CancelScope(shield=True):
            await trio.sleep(10)

    @app.task
    async def other() -> None:
        started.append(trio.current_time())

    worker = Worker(
        app, evolve(app.config.worker, concurrency=1, prefetch=1), clock=trio.current_time, leave=left.append
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await worker.joined()
        await app.publish_many([selfish.message(), other.message()])
        await stood.wait()
        # A tenth of the lease for an answer that does not come, and a second until it is looked at again.
        await trio.sleep(4)
        assert left == [1]
        await trio.sleep(20)
        assert started == []
        nursery.cancel_scope.cancel()


async def test_a_lease_is_not_doubted_without_need(autojump_clock, app, broker, caplog):
    @app.task
    async def selfish() -> None:
        for _ in range(20):
            autojump_clock.jump(10)
            await trio.sleep(1)

    async with running_worker(app, name="first", scheduler=False) as worker:
        await selfish.send()
        await worker.settled(1)

    assert worker.report()["done"] == 1
    assert not [message for message in caplog.messages if "lease" in message]


@pytest.mark.parametrize("cut", [False, True])
async def test_a_lease_that_ends_while_stopping_ends_what_runs(autojump_clock, app, broker, cut):
    @app.task
    async def slow() -> None:
        await trio.sleep(5000)

    async with running_worker(app, name="first", scheduler=False, shutdown_timeout=1000) as worker:
        await slow.send()
        await worker.busy()
        worker.stop()
        asked = trio.current_time()
        if cut:
            broker.error = BrokerUnavailable("cut")
        else:
            async with broker.keeper(["default"]) as keeper:
                await keeper.reclaim(dead="first")

    # Told of it, at the next renewal; cut off, at two thirds of the lease, and a last flush.
    assert trio.current_time() - asked < (30 if cut else 10)


async def test_a_late_outcome_is_not_used_and_is_counted(autojump_clock, app, broker):
    @app.task
    async def slow(seconds: float) -> float:
        await trio.sleep(seconds)
        return seconds

    async with running_worker(app, name="first", heartbeat_interval=5) as worker:
        await slow.send(1)
        await worker.busy()
        broker.error = BrokerUnavailable("cut")
        async with broker.keeper(["default"]) as keeper:
            await keeper.reclaim(dead="first")
        await trio.sleep(5)
        broker.error = None
        await worker.settled(2)

    assert (worker.report()["stale"], worker.report()["done"]) == (1, 1)


async def test_a_delivery_whose_reply_was_lost_is_found_and_run_once(autojump_clock, app, broker, books):
    runs = []

    @app.task
    async def work() -> None:
        runs.append(trio.current_time())

    async with running_worker(app) as worker:
        start = trio.current_time()
        broker.hides = True
        result = await work.delay()
        await result.get()
        await worker.settled(1)
        assert trio.current_time() - start <= 15

    assert len(runs) == 1


async def test_notes_are_compared_now_and_then_and_after_an_outage(autojump_clock, app, broker):
    async with running_worker(app):
        await trio.sleep(100)
        assert 5 <= broker.reconciled <= 8
        before = broker.reconciled
        broker.error = BrokerUnavailable("cut")
        await trio.sleep(5)
        broker.error = None
        await trio.sleep(2)
        assert broker.reconciled > before


async def test_an_outage_is_over_when_the_broker_answers_although_there_is_nothing_to_fetch(
    autojump_clock, app, broker, books, caplog
):
    @app.task
    async def quick() -> str:
        return "done"

    async with running_worker(app) as worker:
        broker.hides = True
        result = await quick.delay()
        with trio.fail_after(2):
            assert await result.get() == "done"
        await trio.sleep(1)

        assert worker.state == "working"
        assert (await worker.healthcheck()).ok
    assert "the broker answers again" in caplog.text


async def test_an_outage_in_which_a_lease_was_lost_ends_with_the_next_lease(autojump_clock, app, broker):
    @app.task
    async def slow() -> None:
        await trio.sleep(3)

    async with running_worker(app, scheduler=False) as worker:
        await slow.delay()
        await worker.busy()
        broker.error = BrokerUnavailable("cut")
        await trio.sleep(10)
        # It has something to settle, and is never asked for it again.
        broker.error, broker.lost = None, True
        await worker.settled(1)
        broker.lost = False
        await trio.sleep(7)

        assert worker.state == "working"


async def test_finished_work_waits_for_the_broker_and_is_not_done_again(autojump_clock, app, broker, books):
    runs = []

    @app.task
    async def quick() -> str:
        broker.error = BrokerUnavailable("cut")
        runs.append(True)
        return "done"

    async with running_worker(app) as worker:
        result = await quick.delay()
        await trio.sleep(10)
        assert (worker.running, worker.held) == (0, 1)
        broker.error = None
        assert await result.get() == "done"

    assert runs == [True]


async def test_a_stop_while_the_broker_is_away_is_bounded(autojump_clock, app, broker):
    @app.task
    async def quick() -> None:
        broker.error = BrokerUnavailable("cut")

    worker = Worker(app, clock=trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await quick.send()
        await worker.busy()
        await trio.sleep(1)
        asked = trio.current_time()
        worker.stop()

    assert trio.current_time() - asked <= 10
    assert worker.report()["left"] == 1


@pytest.mark.parametrize("error", [BrokerUnavailable("no route"), BrokerRefused("wrong password")])
async def test_a_worker_without_a_broker_tries_on(autojump_clock, app, broker, error, caplog):
    @app.task
    async def one() -> int:
        return 1

    broker.error = error
    worker = Worker(app, clock=trio.current_time)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await trio.sleep(60)
        assert worker.state == "away"
        broker.error = None
        await worker.joined()
        assert worker.state == "working"
        result = await one.delay()
        assert await result.get() == 1
        worker.stop()

    assert sum(str(error) in message for message in caplog.messages) == 1


@pytest.mark.parametrize("error", [BrokerUnavailable("no route"), BrokerRefused("wrong password")])
async def test_a_worker_that_needs_its_broker_says_so_and_ends(autojump_clock, app, broker, error):
    broker.error = error

    with pytest.raises(type(error), match=str(error)):
        await Worker(app, evolve(app.config.worker, require_broker=True), clock=trio.current_time).run()


async def test_a_worker_stops_while_it_waits_for_its_broker(autojump_clock, app, broker):
    broker.error = BrokerUnavailable("no route")
    worker = Worker(app, clock=trio.current_time)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await trio.sleep(60)
        worker.stop()
        asked = trio.current_time()

    assert trio.current_time() == asked
