"""What users test their apps with, in sync and asyncio tests; those on trio are in tests/trio/test_drain.py."""

import asyncio
import threading
import time
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta

import pytest
import trio

from chicory import (
    Chicory,
    DeliveryMode,
    RetryPolicy,
    TaskContext,
    TaskState,
    ValidationMode,
)
from chicory.clock import unix_now
from chicory.config import BrokerConfig, ChicoryConfig, RedisBrokerConfig
from chicory.errors import ArgumentsError, LifespanError, RemoteTaskError, ResultUnknown, TaskExpired, UsageError
from chicory.testing import Clock, Undrained, memory
from chicory.types import BackendType

NOWHERE = "redis://127.0.0.1:1/0"
QUICK = RetryPolicy(max_retries=2, retry_delay=60, jitter=0)


@pytest.fixture
def app():
    """A program's own app; nobody answers where its broker is said to be."""
    app = Chicory(NOWHERE, retry_policy=QUICK)
    app.log = []

    @app.task(name="double")
    async def double(x: int) -> int:
        app.log.append(x)
        return 2 * x

    @app.task(name="halve")
    def halve(x: int) -> float:
        app.log.append((x, threading.current_thread()))
        return x / 2

    @app.task(name="fail")
    async def fail(why: str) -> None:
        app.log.append(unix_now())
        raise ValueError(why)

    return app


@pytest.fixture
def queues(app):
    with memory(app) as queues:
        yield queues


def states(runs):
    return [(run.task_name, run.state.value) for run in runs]


def test_an_app_is_as_it_was_afterwards(app):
    with memory(app):
        task_id = app.tasks["double"].send_sync(1)
        broker = app.broker
    with memory(app) as queues:
        assert queues.enqueued() == []
        with pytest.raises(ResultUnknown):
            app.result(task_id).get_sync()

    assert app._ends is None
    assert app.broker is not broker
    assert app.config.broker.redis.url.get_secret_value() == NOWHERE


def test_neither_file_nor_environment_is_read(app, monkeypatch):
    monkeypatch.setenv("CHICORY_CONFIG", "/nowhere/chicory.toml")
    monkeypatch.setenv("CHICORY_WORKER_CONCURRENCY", "not a number")

    with memory(app) as queues:
        assert app.tasks["double"].delay_sync(21) is not None
        assert [run.value for run in queues.drain_sync()] == [42]


def test_what_is_said_in_code_holds():
    said = ChicoryConfig(broker=BrokerConfig(redis=RedisBrokerConfig(max_priority=9)))
    app = Chicory(NOWHERE, BackendType.NONE, said)

    @app.task(name="work")
    async def work(n: int) -> None: ...

    with memory(app) as queues:
        for priority in (1, 5, 3):
            work.options(priority=priority).send_sync(priority)

        assert [one.args for one in queues.enqueued()] == [[5], [3], [1]]
        assert app.backend is None
        assert len(queues.drain_sync()) == 3


def test_tasks_run_when_the_test_says_so(app, queues):
    doubled = app.tasks["double"].delay_sync(21)
    halved = app.tasks["halve"].delay_sync(3)
    assert app.log == []
    assert doubled.state_sync() is TaskState.PENDING

    runs = queues.drain_sync()

    assert sorted(states(runs)) == [("double", "success"), ("halve", "success")]
    assert (doubled.get_sync(), halved.get_sync()) == (42, 1.5)
    assert queues.drain_sync() == []
    assert list(queues.ran) == runs


def test_sync_tasks_run_in_the_thread_of_a_sync_test(app, queues):
    for number in range(3):
        app.tasks["halve"].send_sync(number)

    queues.drain_sync()

    assert app.log == [(number, threading.current_thread()) for number in range(3)]


def test_retries_wait_in_no_time(app, queues):
    failing = app.tasks["fail"].delay_sync("no")
    began, real = queues.clock.time(), time.monotonic()

    runs = queues.drain_sync()

    assert states(runs) == [("fail", "retry"), ("fail", "retry"), ("fail", "dead_lettered")]
    assert [run.delay for run in runs] == [60, 120, None]
    assert app.log == [began, began + 60, began + 180]
    assert str(runs[-1].failure) == "ValueError: no"
    assert time.monotonic() - real < 5
    with pytest.raises(RemoteTaskError, match="no"):
        failing.get_sync()


def test_time_is_where_the_test_moves_it(app, queues):
    double = app.tasks["double"]
    double.options(delay=3600).send_sync(1)
    double.options(eta=queues.clock.now() + timedelta(hours=2)).send_sync(2)
    double.options(delay=7200, expires=3600).send_sync(3)

    assert queues.drain_sync(within=0) == []
    queues.clock.advance(3599)
    assert queues.drain_sync(within=0) == []
    queues.clock.advance(timedelta(seconds=1))
    assert [run.value for run in queues.drain_sync(within=0)] == [2]
    assert "double(2): success" in [str(run) for run in queues.drain_sync(within=timedelta(hours=1))]

    (expired,) = [run for run in queues.ran if run.failed]
    assert expired.failure.type == "TaskExpired"
    with pytest.raises(UsageError, match="moved forward"):
        queues.clock.advance(-1)


def test_a_century_takes_no_time_and_lands_on_the_instant(app):
    begin = datetime(2027, 1, 1, tzinfo=UTC)
    with memory(app, clock=begin) as queues:
        app.tasks["double"].options(delay=99 * 365 * 86400.0).send_sync(1)

        (run,) = queues.drain_sync()

        assert run.ended == begin + timedelta(days=99 * 365)
        assert queues.clock.now() == run.ended


def test_a_result_lives_as_long_as_it_is_said_to(app, queues):
    result = app.tasks["double"].delay_sync(1)
    queues.drain_sync()
    queues.clock.advance(86399)
    assert result.get_sync() == 2

    queues.clock.advance(2)

    assert result.state_sync() is TaskState.EXPIRED


def test_a_timeout_and_a_sleep_are_virtual(app, queues):
    @app.task(name="slow", timeout=30, retry_policy=RetryPolicy(max_retries=0))
    async def slow(seconds: float) -> str:
        await trio.sleep(seconds)
        return "awake"

    slow.send_sync(29)
    slow.send_sync(31)

    assert [run.value or run.failure.type for run in queues.drain_sync()] == ["awake", "TaskTimeout"]


def test_time_stands_still_while_a_sync_task_works(app, queues):
    @app.task(name="busy", timeout=5)
    def busy() -> float:
        time.sleep(0.02)
        return unix_now()

    @app.task(name="nap")
    async def nap() -> float:
        await trio.sleep(10)
        return unix_now()

    began = queues.clock.time()
    busy.send_sync()
    nap.send_sync()

    assert {run.task_name: run.value - began for run in queues.drain_sync()} == {"busy": 0, "nap": 10}


def test_what_tasks_send_is_drained_too_from_async_and_sync(app, queues):
    @app.task(name="parent")
    async def parent(n: int) -> None:
        if n:
            await parent.options(queue=f"level{n}", delay=n).send(n - 1)

    @app.task(name="sync_parent")
    def sync_parent(n: int) -> None:
        if n:
            sync_parent.send_sync(n - 1)

    parent.send_sync(3)
    sync_parent.send_sync(2)

    assert sorted(states(queues.drain_sync())) == [("parent", "success")] * 4 + [("sync_parent", "success")] * 3
    assert queues.enqueued() == []


def test_a_sync_task_may_wait_for_others_of_both_kinds(app, queues):
    @app.task(name="slow")
    async def slow(x: int) -> int:
        await trio.sleep(600)
        return x

    @app.task(name="both")
    def both(x: int) -> float:
        return app.tasks["halve"].delay_sync(x).get_sync() + slow.delay_sync(x).get_sync()

    both.send_sync(2)
    both.send_sync(4)

    assert [run.value for run in queues.drain_sync() if run.task_name == "both"] in ([3, 6], [6, 3])


def test_what_goes_on_for_ever_is_an_error_that_says_what_is_left(app, queues):
    @app.task(name="again")
    async def again(n: int) -> None:
        await again.send(n + 1)

    @app.task(name="snooze")
    async def snooze(context: TaskContext) -> None:
        context.snooze(60)

    again.send_sync(0)
    with pytest.raises(Undrained, match=r"there were 50 runs, and that was not all; left are:\n  again\(50\)") as error:
        queues.drain_sync(limit=50)
    assert [one.args for one in error.value.left] == [[50]]
    assert isinstance(error.value, AssertionError)

    with memory(app) as queues:
        snooze.send_sync()
        with pytest.raises(Undrained, match=r"snooze\(\) in 'default', due 60 s after"):
            queues.drain_sync(limit=5)
        assert [run.state for run in queues.ran] == [TaskState.PENDING] * 5


def test_a_limit_that_is_just_enough_is_enough(app, queues):
    for number in range(5):
        app.tasks["double"].send_sync(number)

    assert len(queues.drain_sync(limit=5)) == 5


def test_a_task_that_never_ends_is_an_error(app, queues):
    @app.task(name="hang")
    async def hang() -> None:
        await trio.sleep_forever()

    hang.send_sync()

    with pytest.raises(Undrained, match="does not end"):
        queues.drain_sync()


def test_what_is_enqueued_can_be_asserted(app, queues):
    double, halve = app.tasks["double"], app.tasks["halve"]
    double.options(queue="mail", delay=60).send_sync(1)
    double.send_sync(x=2)
    double.send_sync(2)

    assert [(one.task_name, one.delay, one.queue) for one in queues.enqueued(double)] == [
        ("double", 0, "default"),
        ("double", 0, "default"),
        ("double", 60, "mail"),
    ]
    assert len(queues.assert_enqueued("double")) == 3
    queues.assert_enqueued(double, [2], times=2)
    queues.assert_enqueued(double, kwargs={"x": 2}, delay=0)
    queues.assert_enqueued(double, [1], queue="mail", delay=timedelta(minutes=1))
    queues.assert_enqueued(halve, times=0)
    assert queues.enqueued(queue="mail")[0].task_id


def test_an_assertion_that_fails_shows_what_was_there_instead(app, queues):
    double = app.tasks["double"]
    double.options(queue="mail", delay=60).send_sync(1)
    app.tasks["halve"].send_sync(3)
    queues.drain_sync(within=0)

    with pytest.raises(AssertionError) as error:
        queues.assert_enqueued(double, [2], queue="mail", delay=5)
    assert str(error.value).splitlines() == [
        "of double(2) in 'mail', due 5 s after it was sent there waits none; what waits is",
        "  double(1) in 'mail', due 60 s after it was sent",
        "what has run is",
        "  halve(3): success",
    ]
    with pytest.raises(AssertionError, match="waits 1 and not 2"):
        queues.assert_enqueued(double, times=2)
    with pytest.raises(AssertionError, match="what waits is\n  double"):
        queues.assert_enqueued(double, times=0)
    with pytest.raises(ArgumentsError):
        queues.assert_enqueued(double, [1, 2])


def test_arguments_are_compared_as_they_travel():
    app = Chicory(NOWHERE, validation_mode=ValidationMode.STRICT)

    @app.task(name="plan")
    def plan(context: TaskContext, day: datetime, rooms: tuple[int, ...] = (1, 2)) -> None: ...

    with memory(app) as queues:
        plan.send_sync(datetime(2027, 1, 1, tzinfo=UTC))

        queues.assert_enqueued(plan, [datetime(2027, 1, 1, tzinfo=UTC)], {"rooms": (1, 2)})


def test_each_message_is_delivered_twice_where_that_is_asked_for(app, queues):
    seen = []

    @app.task(name="pay")
    async def pay(context: TaskContext, amount: int) -> int:
        seen.append((context.task_id, context.deliveries))
        return amount

    @app.task(name="once", delivery_mode=DeliveryMode.AT_MOST_ONCE)
    async def once() -> None: ...

    result = pay.delay_sync(5)
    once.send_sync()
    app.tasks["fail"].send_sync("no")

    runs = queues.drain_sync(redeliver=True)

    assert seen == [(result.id, 1), (result.id, 2)]
    assert [run.lost for run in runs if run.task_name == "pay"] == [True, False]
    assert [run.task_name for run in runs].count("once") == 1
    assert [run.task_name for run in runs].count("fail") == 4
    assert result.get_sync() == 5


def test_eager_tasks_run_where_they_are_sent(app):
    with memory(app, eager=True) as queues:
        assert app.tasks["double"].delay_sync(21).get_sync() == 42
        assert app.tasks["halve"].options(delay=3600).delay_sync(3).get_sync() == 1.5
        assert app.log == [21, (3, threading.current_thread())]
        with pytest.raises(RemoteTaskError, match="no"):
            app.tasks["fail"].delay_sync("no").get_sync()

        results = app.publish_many_sync([app.tasks["double"].message(n) for n in (1, 2)])

        assert [result.get_sync() for result in results] == [2, 4]
        assert [run.state.value for run in queues.ran if run.task_name == "fail"] == ["retry", "retry", "dead_lettered"]
        assert queues.enqueued() == []


def test_eager_tasks_may_send_others_from_any_depth(app):
    @app.task(name="sync_tower")
    def sync_tower(n: int) -> int:
        assert threading.current_thread() is threading.main_thread()
        return n + (sync_tower.delay_sync(n - 1).get_sync() if n else 0)

    @app.task(name="tower")
    async def tower(n: int) -> int:
        return n + (await (await tower.delay(n - 1)).get() if n else 0)

    with memory(app, eager=True):
        assert sync_tower.delay_sync(3).get_sync() == 6
        assert tower.delay_sync(3).get_sync() == 6


def test_failures_are_raised_where_that_is_asked_for(app):
    with memory(app, eager=True, propagate=True), pytest.raises(ValueError, match="no"):
        app.tasks["fail"].delay_sync("no")
    with memory(app, propagate=True) as queues:
        app.tasks["fail"].send_sync("no")
        with pytest.raises(ValueError, match="no"):
            queues.drain_sync()
        app.tasks["fail"].send_sync("one")
        app.tasks["fail"].send_sync("two")
        with pytest.raises(ExceptionGroup, match="2 tasks failed"):
            queues.drain_sync()
        app.tasks["double"].options(delay=10, expires=5).send_sync(1)
        with pytest.raises(TaskExpired):
            queues.drain_sync()


def test_a_wait_that_could_never_end_is_an_error_at_once(app, queues):
    result = app.tasks["double"].delay_sync(1)

    with pytest.raises(UsageError, match="drain the queues first"):
        result.get_sync()

    async def wait() -> None:
        await result.get()

    with pytest.raises(UsageError, match="drain the queues first"):
        asyncio.run(wait())


def test_asyncio_tests_are_served_as_sync_ones_are(app):
    async def main() -> None:
        with memory(app) as queues:
            results = [await app.tasks[name].delay(3) for name in ("double", "halve")]
            await app.tasks["fail"].options(delay=60).send("no")

            ticks = asyncio.ensure_future(asyncio.sleep(0))
            assert len(await queues.drain()) == 5
            assert ticks.done()
            assert [await result.get() for result in results] == [6, 1.5]
        with memory(app, eager=True, propagate=True):
            assert await (await app.tasks["halve"].delay(3)).get() == 1.5
            with pytest.raises(ValueError, match="no"):
                await app.tasks["fail"].send("no")
            with pytest.raises(UsageError, match="await"):
                app.tasks["halve"].send_sync(3)

    asyncio.run(main())


def test_a_drain_that_is_cancelled_gives_back_what_it_ran(app):
    entered = threading.Event()

    @app.task(name="wait")
    async def wait() -> None:
        entered.set()
        await trio.sleep_forever()

    async def main() -> None:
        with memory(app, autojump=float("inf")) as queues:
            await wait.send()
            draining = asyncio.ensure_future(queues.drain())
            await asyncio.to_thread(entered.wait, 5)
            draining.cancel()
            with pytest.raises(asyncio.CancelledError):
                await draining
            queues.assert_enqueued(wait, times=1)

    asyncio.run(main())


def test_a_thread_of_a_server_sends_and_the_test_drains(app, queues):
    thread = threading.Thread(target=asyncio.run, args=[app.tasks["double"].send(4)])
    thread.start()
    thread.join()

    assert [run.value for run in queues.drain_sync()] == [8]


def test_middleware_surrounds_a_drained_task_as_on_a_worker(app, queues):
    seen = []

    @app.on_run
    async def note(message, call_next):
        value = await call_next(message)
        seen.append((message.name, value))
        return value

    for name in ("double", "halve"):
        app.tasks[name].send_sync(3)
    queues.drain_sync()

    assert sorted(seen) == [("double", 6), ("halve", 1.5)]


@pytest.mark.parametrize("flavor", ["trio", "asyncio"])
def test_what_tasks_share_is_open_while_they_are_drained(flavor):
    told = []

    async def share(app):
        await (asyncio.sleep(0.01) if flavor == "asyncio" else trio.sleep(10))
        told.append("open")
        yield
        await (asyncio.sleep(0.01) if flavor == "asyncio" else trio.sleep(10))
        told.append("closed")

    app = Chicory(NOWHERE, lifespan=share, flavor=flavor)

    @app.task(name="use")
    def use() -> None:
        told.append("used")

    with memory(app) as queues:
        use.send_sync()
        began = queues.clock.time()
        queues.drain_sync()

        assert queues.clock.time() - began == (0 if flavor == "asyncio" else 20)
    assert told == ["open", "used", "closed"]


def test_what_cannot_be_opened_is_the_error_of_the_drain():
    async def share(app):
        raise OSError("no database")
        yield

    app = Chicory(NOWHERE, lifespan=share)

    @app.task(name="use")
    def use() -> None: ...

    with memory(app) as queues:
        use.send_sync()

        with pytest.raises(LifespanError, match="no database"):
            queues.drain_sync()
        queues.assert_enqueued(use, times=1)


def test_an_asyncio_task_takes_no_virtual_time(app, queues):
    @app.task(name="tick", flavor="asyncio", timeout=5)
    async def tick() -> str:
        await asyncio.sleep(0.02)
        return "done"

    began = queues.clock.time()
    tick.send_sync()

    assert [run.value for run in queues.drain_sync()] == ["done"]
    assert queues.clock.time() == began


def test_two_apps_share_a_clock(app, queues):
    other = Chicory(NOWHERE)

    @other.task(name="later")
    def later() -> None: ...

    with memory(other, clock=queues.clock) as others:
        later.options(delay=60).send_sync()
        app.tasks["double"].options(delay=60).send_sync(1)

        assert len(queues.drain_sync()) == 1
        assert len(others.drain_sync(within=0)) == 1


def test_a_clock_never_goes_back():
    clock = Clock(datetime(2027, 1, 1, tzinfo=UTC))
    shown = []

    async def look(rounds: int) -> None:
        for _ in range(rounds):
            shown.append(clock.time())
            clock.advance(0.1)
            await trio.sleep(0.1)

    for _ in range(2):
        trio.run(look, 5, clock=trio.testing.MockClock(autojump_threshold=0))
        shown.append(clock.time())

    assert shown == sorted(shown)
    assert shown[-1] - shown[0] == pytest.approx(2.0)


def noting(app, **settings):
    """A task that notes its slot and when it ran, both as seconds since a whole hour."""
    ran = []

    @app.task(name="note", **settings)
    async def note(context: TaskContext, word: str = "") -> None:
        ran.append((word, context.slot.timestamp() % 3600, unix_now() % 3600))

    return note, ran


NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)


def test_schedules_fire_when_a_drain_lets_time_pass(app):
    note, ran = noting(app)
    app.schedule(note, every=600, args=["every"])
    app.schedule(note.options(queue="own"), cron="5,30 * * * *", args=["cron"], name="line")

    with memory(app, clock=NEW_YEAR) as queues:
        app.tasks["double"].options(delay=700).send_sync(1)
        assert len(queues.drain_sync()) == 1
        assert ran == []

    with memory(app, clock=NEW_YEAR) as queues:
        app.tasks["double"].options(delay=700).send_sync(1)
        assert queues.drain_sync(within=0) == []
        runs = queues.drain_sync(within=1800)
        assert queues.clock.now() == NEW_YEAR + timedelta(seconds=1800)
        assert queues.drain_sync(within=0) == []
        assert queues.drain_sync() == []

    assert [run.ended.minute for run in runs] == [5, 10, 11, 20, 30, 30]
    assert sorted(ran) == [("cron", 300, 300), ("cron", 1800, 1800), *[("every", n, n) for n in (600, 1200, 1800)]]


@pytest.mark.parametrize(
    ("misfire", "waited", "fired"),
    [
        ("all", 1900, [600, 1200, 1800]),
        ("once", 1900, [1800]),
        ("skip", 1850, [1800]),
        ("skip", 1900, []),
    ],
)
def test_slots_that_passed_without_a_drain_were_missed(app, misfire, waited, fired):
    note, ran = noting(app)
    app.schedule(note, every=600, misfire=misfire)

    with memory(app, clock=NEW_YEAR) as queues:
        queues.clock.advance(waited)
        queues.drain_sync(within=0)
        assert [slot for _, slot, _ in ran] == fired
        queues.drain_sync(within=600)

    assert [(slot, when) for _, slot, when in ran] == [*((slot, waited) for slot in fired), (2400, 2400)]


def test_of_many_that_were_missed_each_is_fired_in_order(app):
    note, ran = noting(app)
    app.schedule(note, every=1, misfire="all")

    with memory(app, clock=NEW_YEAR) as queues:
        queues.clock.advance(600)
        assert len(queues.drain_sync(within=0)) == 600

    assert [slot for _, slot, _ in ran] == [*range(1, 601)]


def test_slots_are_on_time_while_a_task_takes_its_time(app):
    note, ran = noting(app)
    app.schedule(note, every=60)

    @app.task(name="rest")
    async def rest() -> None:
        await trio.sleep(400)

    with memory(app, clock=NEW_YEAR) as queues:
        rest.send_sync()
        queues.drain_sync(within=300)
        assert queues.clock.now() == NEW_YEAR + timedelta(seconds=400)
        assert [(slot, when) for _, slot, when in ran] == [(60 * n, pytest.approx(60 * n)) for n in range(1, 6)]
        queues.drain_sync(within=30)

    assert [slot for _, slot, _ in ran[5:]] == [360, 420]


def test_a_drain_of_schedules_has_its_limit_too(app):
    note, _ = noting(app)
    app.schedule(note, every=1)

    with memory(app, clock=NEW_YEAR) as queues:
        assert len(queues.drain_sync(within=20, limit=20)) == 20
        with pytest.raises(Undrained, match="there were 20 runs, and that was not all, for schedules go on"):
            queues.drain_sync(within=21, limit=20)


def test_a_queue_that_nobody_knew_of_is_drained_too(app, queues):
    @app.task(name="pass-on")
    async def pass_on() -> None:
        await app.tasks["double"].options(queue="new").send(21)

    pass_on.send_sync()

    assert [run.value for run in queues.drain_sync()] == [None, 42]


@pytest.mark.parametrize("how", [{}, {"process": True}, {"timeout": 90}])
def test_a_deadline_is_on_the_clock_of_the_test(app, how):
    @app.task(name="until", **{"timeout": 60, **how})
    def until(context: TaskContext) -> str:
        return context.deadline.isoformat()

    with memory(app, clock=NEW_YEAR) as queues:
        until.options(delay=600).send_sync()
        (run,) = queues.drain_sync()

    assert run.value == (NEW_YEAR + timedelta(seconds=600 + how.get("timeout", 60))).isoformat()


@pytest.mark.parametrize("eager", [True, False])
def test_what_is_carried_is_there_and_the_variable_of_the_test_is_left_alone(eager):
    tenant = ContextVar("tenant", default="nobody")
    app = Chicory(NOWHERE, carry=[tenant])
    seen = []

    @app.task(name="outer")
    def outer() -> None:
        seen.append((tenant.get(), threading.current_thread()))
        tenant.set("leaked")
        inner.send_sync()

    @app.task(name="inner")
    async def inner() -> None:
        seen.append(tenant.get())

    with memory(app, eager=eager) as queues:
        before = tenant.set("ann")
        outer.send_sync()
        tenant.reset(before)
        queues.drain_sync()

        assert seen == [("ann", threading.current_thread()), "leaked"]
        assert tenant.get() == "nobody"
