"""How a worker runs tasks and what becomes of them."""

import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import attrs
import pytest
import trio

from chicory import DeliveryMode, RemoteTaskError, RetryPolicy, TaskContext, TaskExpired, TaskMessage, TaskState
from chicory.config import WorkerConfig
from chicory.errors import DelayError
from chicory.testing import running_worker
from chicory.worker.worker import Worker
from tests.trio.books import close_books

ONCE = RetryPolicy(max_retries=0)


async def dead(app):
    return [(letter.task_name, letter.error) for letter in await app.broker.get_dlq_messages()]


async def test_a_failing_task_is_tried_again_and_then_dead_lettered(autojump_clock, app, books):
    tries = []

    @app.task(name="fail", retry_policy=RetryPolicy(max_retries=2, retry_delay=10, jitter=0))
    async def fail(context: TaskContext) -> None:
        tries.append((context.retries, trio.current_time()))
        raise ValueError("always")

    async with running_worker(app) as worker:
        result = await fail.delay()
        await worker.settled(1)
        assert await result.state() is TaskState.RETRY
        await worker.settled(3)

    assert [retries for retries, _ in tries] == [0, 1, 2]
    assert tries[1][1] - tries[0][1] == pytest.approx(10, abs=1)
    assert tries[2][1] - tries[1][1] == pytest.approx(20, abs=1)
    assert await dead(app) == [("fail", "ValueError: always")]
    assert await result.state() is TaskState.DEAD_LETTERED


async def test_without_dead_letters_a_failure_is_only_a_failure(autojump_clock, app, books):
    @app.task(retry_policy=ONCE)
    async def fail() -> None:
        raise ValueError

    async with running_worker(app, use_dead_letter_queue=False) as worker:
        result = await fail.delay()
        await worker.settled(1)

    assert await dead(app) == []
    assert await result.state() is TaskState.FAILURE


async def test_a_task_may_choose_when_to_run_again(autojump_clock, app, books):
    runs = []

    @app.task(name="later", retry_policy=RetryPolicy(max_retries=1, retry_delay=1))
    async def later(context: TaskContext) -> str:
        runs.append((context.retries, trio.current_time()))
        if len(runs) < 4:
            context.snooze(timedelta(seconds=100))
        if len(runs) == 4:
            context.retry(countdown=1000, why="busy")
        return "now"

    async with running_worker(app):
        result = await later.delay()
        assert await result.get() == "now"

    assert [retries for retries, _ in runs] == [0, 0, 0, 0, 1]
    waits = [after - before for (_, before), (_, after) in pairwise(runs)]
    assert waits == pytest.approx([100, 100, 100, 1000], abs=1)


async def test_what_is_ignored_is_not_tried_again(autojump_clock, app, books):
    @app.task(name="fail", retry_policy=RetryPolicy(ignore_on=LookupError))
    async def fail() -> None:
        raise KeyError("final")

    async with running_worker(app) as worker:
        await fail.send()
        await worker.settled(1)

    assert await dead(app) == [("fail", "KeyError: 'final'")]


async def test_a_task_may_fail_for_good(autojump_clock, app, books):
    @app.task(name="fail")
    async def fail(context: TaskContext, how: str) -> None:
        match how:
            case "told":
                context.fail("no such order")
            case "made":
                context.fail(KeyError("no such order"))
            case "caught":
                try:
                    raise ValueError("odd")
                except ValueError as error:
                    context.fail(error)
            case "within":
                async with trio.open_nursery():
                    context.fail("in a nursery")
            case _:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep_forever)
                    nursery.start_soon(odd)
                    context.fail("beside another")

    async def odd() -> None:
        raise ValueError

    told = {}
    async with running_worker(app) as worker:
        for how in ("told", "made", "caught", "within", "beside"):
            with pytest.raises(RemoteTaskError) as caught:
                await (await fail.delay(how)).get()
            told[how] = caught.value.failure
        assert worker.report()["dead"] == 5

    assert {how: str(failure) for how, failure in told.items() if how != "beside"} == {
        "told": "GiveUp: no such order",
        "made": "KeyError: 'no such order'",
        "caught": "ValueError: odd",
        "within": "GiveUp: in a nursery",
    }
    assert told["beside"].type == "ExceptionGroup"
    for how in ("told", "made", "caught"):
        assert "in fail" in told[how].traceback


async def test_a_retry_that_a_task_asks_for_is_no_matter_of_kinds_but_of_counting(autojump_clock, app, books):
    seen = []

    @app.task(name="ask", retry_policy=RetryPolicy(max_retries=2, retry_on=OSError))
    async def ask(context: TaskContext) -> None:
        seen.append((context.retries, context.remaining_retries, context.is_last_retry, context.max_retries))
        async with trio.open_nursery():
            context.retry()

    async with running_worker(app):
        with pytest.raises(RemoteTaskError, match="Retry: the task asked for a retry"):
            await (await ask.delay()).get()

    assert seen == [(0, 2, False, 2), (1, 1, False, 2), (2, 0, True, 2)]


async def test_a_run_knows_its_conditions(app, books):
    # On real time: a clock that jumps while a thread is at work has its timeout run out.
    seen = []

    @app.task(timeout=60)
    def look(context: TaskContext) -> None:
        seen.append(context)
        if context.retries == 0:
            context.retry(countdown=0)

    async with running_worker(app):
        result = await look.options(retry_policy=RetryPolicy(max_retries=7)).delay()
        await result.get()
        await (await look.options(timeout=1e300).delay()).get()

    first, second, *others = seen
    left = first.deadline - datetime.now(UTC)
    assert timedelta(seconds=30) < left <= timedelta(seconds=60)
    assert first.max_retries == 7
    assert first.idempotency_key == second.idempotency_key != others[0].idempotency_key
    assert others[0].deadline.year > 2100
    assert look.message().timeout == 60


def test_what_a_task_cannot_wait_for_is_refused():
    context = TaskContext.of_call("work")

    assert context.deadline is None
    with pytest.raises(DelayError):
        context.snooze(-1)
    with pytest.raises(DelayError):
        context.retry(countdown=float("nan"))


async def test_a_policy_may_be_given_for_one_call(autojump_clock, app, books):
    tries = Counter()

    @app.task(retry_policy=ONCE)
    async def fail(word: str) -> None:
        tries[word] += 1
        raise ConnectionResetError

    async with running_worker(app) as worker:
        await fail.send("the task's")
        await fail.options(retry_policy=RetryPolicy(max_retries=4, retry_on=ConnectionError)).send("the call's")
        await fail.options(retry_policy=RetryPolicy(max_retries=4, retry_on=ValueError)).send("another")
        await worker.settled(7)

    assert tries == {"the task's": 1, "the call's": 5, "another": 1}


async def test_a_time_budget_counts_from_the_first_try(autojump_clock, app, books):
    begun = []
    policy = RetryPolicy(max_retries=100, retry_delay=10, backoff="fixed", jitter=0, time_budget=60)

    @app.task(name="fail", retry_policy=policy)
    async def fail() -> None:
        begun.append(trio.current_time())
        await trio.sleep(5)
        raise ValueError

    async with running_worker(app) as worker:
        await fail.options(delay=3600).send()
        await trio.sleep(7200)
        await worker.idle()
        assert [round(at - begun[0]) for at in begun] == [0, 15, 30, 45, 60]

        (letter,) = await app.broker.get_dlq_messages()
        await app.broker.replay_from_dlq(letter.message_id)
        await trio.sleep(7200)
        await worker.idle()

    assert [round(at - begun[5]) for at in begun[5:]] == [0, 15, 30, 45, 60]


class Rude(BaseException):
    pass


class Untraceable(Exception):
    @property
    def __traceback__(self):
        raise SystemExit


@pytest.mark.parametrize(
    "error",
    [
        ValueError("plain"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        Rude("base"),
        Untraceable(),
        ExceptionGroup("several", [ValueError(1), OSError(2)]),
        BaseExceptionGroup("worse", [KeyboardInterrupt(), ValueError(2)]),
    ],
)
@pytest.mark.parametrize("sync", [False, True])
async def test_no_exception_of_a_task_harms_its_siblings(autojump_clock, app, books, error, sync):
    @app.task
    async def sibling() -> str:
        await trio.sleep(10)
        return "well"

    if sync:

        @app.task(retry_policy=ONCE)
        def fail() -> None:
            raise error
    else:

        @app.task(retry_policy=ONCE)
        async def fail() -> None:
            await trio.sleep(1)
            raise error

    async with running_worker(app):
        well = await sibling.delay()
        failed = await fail.delay()

        with pytest.raises(RemoteTaskError) as caught:
            await failed.get()
        assert caught.value.failure.type == type(error).__name__
        assert await well.get() == "well"


async def test_a_stray_cancelled_is_a_failure_and_no_cancellation(autojump_clock, app, books):
    @app.task
    async def sibling() -> str:
        await trio.sleep(10)
        return "well"

    @app.task(retry_policy=ONCE)
    async def fail() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.sleep(1)
            except trio.Cancelled as cancelled:
                kept = cancelled
                raise
        raise kept

    async with running_worker(app):
        well = await sibling.delay()
        failed = await fail.delay()

        with pytest.raises(RemoteTaskError, match="Cancelled"):
            await failed.get()
        assert await well.get() == "well"


@pytest.mark.parametrize("end", ["raises", "snoozes", "takes too long", "returns a set", "is given back"])
async def test_what_a_task_does_to_its_arguments_is_not_seen_by_the_next_try(autojump_clock, app, books, end):
    seen = []

    @app.task(name="change", timeout=5, retry_policy=RetryPolicy(max_retries=1))
    async def change(context: TaskContext, items: list[object], *, options: dict[str, object]) -> object:
        seen.append((list(items), dict(options), dict(context.message.headers)))
        items.append(items)
        options["more"] = object()
        context.message.headers["more"] = "more"
        context.message.args.append(seen)
        match end:
            case "raises":
                raise ValueError
            case "snoozes" if len(seen) == 1:
                context.snooze(1)
            case "takes too long":
                await trio.sleep(10)
            case "returns a set":
                return {1}
            case "is given back" if len(seen) == 1:
                await trio.sleep(1000)
        return None

    async with running_worker(app, shutdown_timeout=0) as worker:
        result = await change.options(headers={"a": "b"}).delay([1], options={"x": 1})
        if end != "is given back":
            await result.wait()
        else:
            await worker.busy()
    async with running_worker(app):
        record = await result.wait()

    assert seen == [([1], {"x": 1}, {"a": "b"})] * (1 if end == "returns a set" else 2)
    if record.state is TaskState.DEAD_LETTERED:
        (letter,) = await app.broker.get_dlq_messages()
        sent = letter.original_message
        assert (sent.args, sent.kwargs, sent.headers) == ([[1]], {"options": {"x": 1}}, {"a": "b"})


@pytest.mark.parametrize("kept", [True, False])
async def test_work_that_a_task_leaves_to_others_is_a_failure_that_says_what_to_write(autojump_clock, app, books, kept):
    async def coroutine() -> int:
        return 1

    async def stream() -> AsyncIterator[int]:
        yield 1

    @app.task(name="sync", ignore_result=not kept)
    def sync(what: str) -> object:
        return {"a coroutine": coroutine, "an async generator": stream}.get(what, lambda: (x for x in (1,)))()

    @app.task(name="async", ignore_result=not kept)
    async def async_(what: str) -> object:
        return sync(what)

    async with running_worker(app) as worker:
        for task in (sync, async_):
            for what in ("a coroutine", "an async generator", "a generator"):
                await task.send(what)
        await worker.settled(6)

    errors = [error for _, error in await dead(app)]
    assert len(errors) == 6
    for error in errors:
        if "coroutine" in error:
            assert "PayloadError: it returned the coroutine " in error
            assert "which nobody awaits; make the task, and each decorator around it, an async function" in error
        else:
            assert "PayloadError: it returned the generator " in error
            assert "return a list" in error
    assert sum("the coroutine" in error for error in errors) == 2


class Exits(UUID):
    @property
    def hex(self):
        raise SystemExit


@pytest.mark.parametrize(
    "value", [object(), float("nan"), {1: 2}, {"deep": {"set": {1}}}, "x" * 300_000, "\ud800", Exits(int=1)]
)
async def test_a_result_that_cannot_travel_is_a_failure(autojump_clock, app, books, value):
    calls = []

    @app.task(name="odd")
    async def odd() -> object:
        calls.append(True)
        return value

    async with running_worker(app) as worker:
        result = await odd.delay()
        with pytest.raises(RemoteTaskError, match="PayloadError"):
            await result.get()
        await worker.settled(1)

    assert len(calls) == 1
    assert len(await dead(app)) == 1


async def test_a_run_that_takes_too_long_is_cut_and_is_a_failure(autojump_clock, app, books):
    ends = []

    @app.task(timeout=5, retry_policy=ONCE)
    async def slow() -> None:
        try:
            await trio.sleep(100)
        finally:
            ends.append(trio.current_time())

    @app.task(timeout=0.05, retry_policy=ONCE)
    def slow_thread(context: TaskContext) -> None:
        while True:
            context.checkpoint()
            time.sleep(0.001)

    async with running_worker(app):
        start = trio.current_time()
        with pytest.raises(RemoteTaskError, match="TaskTimeout: took longer than 5 s"):
            await (await slow.delay()).get()
        assert ends[0] - start == pytest.approx(5, abs=1)
        with pytest.raises(RemoteTaskError, match="took longer than 2 s"):
            await (await slow.options(timeout=2).delay()).get()
        with pytest.raises(RemoteTaskError, match="TaskTimeout"):
            await (await slow_thread.delay()).get()


async def test_a_run_that_swallows_the_end_of_its_time_has_failed_all_the_same(autojump_clock, app, books):
    @app.task(timeout=5, retry_policy=ONCE)
    async def stubborn() -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(6)
        return "late"

    @app.task(timeout=5, retry_policy=ONCE)
    async def deaf() -> str:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            return "unheard"

    @app.task(timeout=0.02, retry_policy=ONCE)
    def thread() -> str:
        time.sleep(0.1)
        return "late"

    # A thread takes real time, and virtual time flies meanwhile.
    async with running_worker(app, timeout_grace=2e6):
        for task in (stubborn, deaf):
            with pytest.raises(RemoteTaskError, match="TaskTimeout: took longer than 5 s"):
                await (await task.delay()).get()
        with pytest.raises(RemoteTaskError, match=r"TaskTimeout: took longer than 0.02 s"):
            await (await thread.delay()).get()


async def test_what_it_raises_when_its_time_is_over_is_told_with_the_timeout(autojump_clock, app, books):
    @app.task(timeout=5, retry_policy=ONCE)
    async def careless(how: str) -> None:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                await trio.sleep_forever()
        finally:
            if how == "group":
                raise BaseExceptionGroup("several", [KeyError("a"), SystemExit(3)])
            raise SystemExit(3) if how == "exit" else ValueError("no such file")

    @app.task(timeout=0.02, retry_policy=ONCE)
    def thread() -> None:
        time.sleep(0.1)
        raise OSError("no answer")

    # A thread takes real time, and virtual time flies meanwhile.
    async with running_worker(app, timeout_grace=2e6):
        for how, told in (
            ("plain", "ValueError: no such file"),
            ("group", "BaseExceptionGroup: several (2 sub-exceptions)"),
            ("exit", "SystemExit: 3"),
        ):
            with pytest.raises(RemoteTaskError) as caught:
                await (await careless.delay(how)).get()
            failure = caught.value.failure
            assert (failure.type, failure.module) == ("TaskTimeout", "")
            assert failure.message == f"took longer than 5 s, and then raised {told}"
            assert "in careless" in failure.traceback
        with pytest.raises(RemoteTaskError, match=r"TaskTimeout: took longer than 0.02 s, and then raised OSError: no"):
            await (await thread.delay()).get()


async def test_what_it_asks_for_when_its_time_is_over_holds(autojump_clock, app, books):
    tries = []

    @app.task(timeout=5, retry_policy=RetryPolicy(max_retries=1, retry_delay=1000, jitter=0))
    async def ask(context: TaskContext, how: str) -> str:
        tries.append(trio.current_time())
        if len(tries) > 1:
            return f"{context.retries} retries"
        try:
            await trio.sleep_forever()
        finally:
            match how:
                case "retry":
                    context.retry(countdown=50)
                case "snooze":
                    context.snooze(50)
                case _:
                    context.fail("no use")

    async with running_worker(app):
        for how, end in (("retry", "1 retries"), ("snooze", "0 retries")):
            tries.clear()
            assert await (await ask.delay(how)).get() == end
            assert tries[1] - tries[0] == pytest.approx(55, abs=2)
        tries.clear()
        with pytest.raises(RemoteTaskError, match="GiveUp: no use"):
            await (await ask.delay("fail")).get()
        assert len(tries) == 1


async def test_a_worker_that_stops_interrupts_what_cleans_up_after_its_time(autojump_clock, app):
    late = trio.Event()

    @app.task(timeout=5, retry_policy=ONCE)
    async def slow() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                late.set()
                await trio.sleep(5)
            await trio.lowlevel.checkpoint()

    async with running_worker(app, shutdown_timeout=0, cancel_grace=30) as worker:
        await slow.delay()
        await late.wait()
        worker.stop()

    assert (await app.broker.get_queue_sizes()).ready == 1


async def test_what_cannot_be_run_goes_to_the_dead_letters_and_the_worker_carries_on(autojump_clock, app, books):
    @app.task(name="pay")
    async def pay(amount: int) -> int:
        return amount

    async with running_worker(app) as worker:
        await app.broker.publish(TaskMessage(name="pya", args=[1]))
        await app.broker.publish(TaskMessage(name="pay", kwargs={"amuont": 1}))
        result = await pay.delay(7)

        assert await result.get() == 7
        await worker.settled(3)

    letters = dict(await dead(app))
    assert "did you mean 'pay'?" in letters["pya"]
    assert letters["pay"].startswith("ArgumentsError: pay(amount: int)")


async def test_a_message_that_expired_is_not_run(autojump_clock, app, books):
    ran = []

    @app.task(expires=60)
    async def note(word: str) -> None:
        ran.append(word)

    late = await note.delay("late")
    await trio.sleep(61)
    fresh = await note.delay("fresh")
    async with running_worker(app):
        await fresh.get()
        with pytest.raises(TaskExpired, match="was never run: it expired at"):
            await late.get()
        assert await late.state() is TaskState.EXPIRED

    assert ran == ["fresh"]


async def test_a_message_that_killed_too_many_workers_is_not_run_again(autojump_clock, app, books):
    ran = []

    @app.task(name="poison")
    async def poison() -> None:
        ran.append(True)

    await poison.send()
    async with app.broker.keeper(["default"]) as keeper:
        for number in range(3):
            async with app.broker.consumer(["default"], name=f"victim-{number}", limit=1) as consumer:
                await consumer.receive(1)
            await keeper.reclaim(dead=f"victim-{number}", why="killed by signal 11")
    async with running_worker(app) as worker:
        await worker.settled(1)

    assert ran == []
    ((name, error),) = await dead(app)
    assert name == "poison"
    assert "killed by signal 11" in error


async def test_no_more_run_than_may_and_no_more_are_held_than_that_and_the_prefetch(autojump_clock, app, books):
    most = {"running": 0, "held": 0}

    @app.task
    async def work() -> None:
        most["running"] = max(most["running"], worker.running)
        most["held"] = max(most["held"], (await app.broker.get_queue_sizes()).delivered)
        await trio.sleep(1)

    await app.publish_many([work.message() for _ in range(40)])
    async with running_worker(app, concurrency=3, prefetch=2) as worker:
        await worker.settled(40)

    assert most == {"running": 3, "held": 5}


async def test_sync_tasks_run_as_many_at_a_time_as_async_ones(autojump_clock, app, books):
    meet = threading.Barrier(50)

    @app.task
    def wait_for_all() -> int:
        return meet.wait(timeout=10)

    async with running_worker(app, concurrency=50):
        results = await app.publish_many([wait_for_all.message() for _ in range(50)])
        assert sorted([await result.get() for result in results]) == list(range(50))


async def test_context_variables_do_not_leak_from_one_task_into_the_next(autojump_clock, app, books):
    who = ContextVar("who", default="nobody")

    @app.task
    async def visit(name: str) -> str:
        before = who.get()
        who.set(name)
        return before

    async with running_worker(app, concurrency=1):
        results = await app.publish_many([visit.message(name) for name in "abc"])
        assert [await result.get() for result in results] == ["nobody"] * 3


@pytest.mark.parametrize("mode", DeliveryMode)
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_nor_from_one_that_has_waited(autojump_clock, app, books, concurrency, mode):
    who = ContextVar("who", default="nobody")

    @app.task(delivery_mode=mode)
    async def visit(name: str) -> str:
        before = who.get()
        await trio.sleep(1)
        who.set(name)
        await trio.sleep(1)
        assert who.get() == name
        return before

    @app.task(delivery_mode=mode)
    async def look() -> str:
        return who.get()

    # The next one is at hand when a run ends, so it is started from there.
    async with running_worker(app, concurrency=concurrency, prefetch=12):
        results = await app.publish_many(
            [message for name in "abcdef" for message in (visit.message(name), look.message())]
        )
        assert [await result.get() for result in results] == ["nobody"] * 12


async def test_nor_from_one_sync_task_into_the_next(app, books):
    who = ContextVar("who", default="nobody")

    @app.task
    def visit(name: str) -> str:
        before = who.get()
        who.set(name)
        return before

    async with running_worker(app, concurrency=2, prefetch=20):
        results = await app.publish_many([visit.message(str(number)) for number in range(20)])
        assert {await result.get() for result in results} == {"nobody"}


async def test_at_most_once_is_acknowledged_before_it_starts(autojump_clock, app, books):
    delivered = []

    @app.task(delivery_mode=DeliveryMode.AT_MOST_ONCE, name="metric")
    async def metric(x: int) -> int:
        delivered.append((await app.broker.get_queue_sizes()).delivered)
        return x

    async with running_worker(app, concurrency=2, prefetch=3) as worker:
        results = await app.publish_many([metric.message(x) for x in range(6)])
        assert [await result.get() for result in results] == list(range(6))
        await worker.settled(6)

    # Only those that wait for their turn are still with the broker.
    assert max(delivered) <= 3
    assert delivered[-1] == 0


async def test_at_most_once_is_never_tried_again(autojump_clock, app, books):
    runs = []

    @app.task(delivery_mode=DeliveryMode.AT_MOST_ONCE)
    async def fail() -> None:
        runs.append(True)
        raise ValueError

    async with running_worker(app):
        result = await fail.delay()
        with pytest.raises(RemoteTaskError):
            await result.get()
        await trio.sleep(10_000)

    assert runs == [True]


async def test_a_quiet_worker_finishes_and_fetches_nothing(autojump_clock, app, books):
    @app.task
    async def work() -> None:
        await trio.sleep(10)

    async with running_worker(app) as worker:
        first = await work.delay()
        await worker.busy()
        worker.quiet()
        await first.get()
        second = await work.delay()
        await trio.sleep(1000)
        assert (await app.broker.get_queue_sizes()).ready == 1
        worker.resume()
        await second.get()


async def test_a_burst_ends_when_nothing_is_left(autojump_clock, app, books):
    done = []

    @app.task
    async def work(x: int) -> None:
        await trio.sleep(1)
        done.append(x)
        if x < 3:
            await work.send(x + 1)

    await work.send(0)
    worker = Worker(app, burst=True, clock=trio.current_time)
    await worker.run()

    assert done == [0, 1, 2, 3]
    assert worker.report()["done"] == 4


async def test_a_beat_says_how_the_worker_is_doing(autojump_clock, app, books):
    @app.task
    async def work() -> None:
        await trio.sleep(10)

    async with running_worker(app, concurrency=2) as worker:
        await app.publish_many([work.message() for _ in range(3)])
        await worker.busy(2)
        worker.look()
        await trio.sleep(3)
        beat = worker.beat()
        worker.quiet()
        assert worker.beat()["state"] == "quiet"
        worker.stop()
        assert worker.beat()["state"] == "stopping"

    assert (beat["state"], beat["running"], beat["fetched"], beat["done"]) == ("working", 2, 2, 0)
    assert [(task["name"], task["age"]) for task in beat["tasks"]] == [(work.name, 3.0)] * 2
    assert len({task["id"] for task in beat["tasks"]}) == 2
    assert beat["rss"] > 1_000_000
    assert 0 < beat["pss"] <= beat["rss"] * 2


async def test_a_beat_names_the_tasks_that_have_run_for_longest_and_counts_the_others(autojump_clock, app):
    @app.task
    async def work() -> None:
        await trio.sleep(10)

    async with running_worker(app, concurrency=50) as worker:
        await app.publish_many([work.message() for _ in range(20)])
        await worker.busy(20)
        oldest = {task["id"] for task in worker.tasks()}
        await trio.sleep(1)
        await app.publish_many([work.message() for _ in range(20)])
        await worker.busy(40)
        beat = worker.beat()

    assert beat["running"] == 40
    assert {task["id"] for task in beat["tasks"]} == oldest


async def test_ctrl_c_reaches_whoever_runs_the_worker_and_no_task(autojump_clock, app):
    inside = []
    before = signal.getsignal(signal.SIGINT)

    @app.task(retry_policy=ONCE)
    async def work() -> None:
        inside.append((trio.lowlevel.currently_ki_protected(), signal.getsignal(signal.SIGINT)))

    async with running_worker(app) as worker:
        await work.send()
        await worker.settled(1)

    # A shell starts what is in the background with the signal ignored; what matters is that no worker changes it.
    assert inside == [(True, before)]


async def test_the_worker_counts_what_it_did(autojump_clock, app):
    @app.task(retry_policy=ONCE)
    async def work(x: int) -> None:
        if x:
            raise ValueError

    async with running_worker(app) as worker:
        await app.publish_many([work.message(x) for x in (0, 0, 1)])
        await worker.settled(3)

    assert worker.report() == {"fetched": 3, "settled": 3, "dead": 1, "done": 2, "stale": 0, "left": 0}
    await close_books(app)


def test_a_worker_takes_its_settings_from_the_app(app):
    assert Worker(app).config == app.config.worker
    assert Worker(app, WorkerConfig(queue="mail")).config.consumed == ("mail",)
    assert attrs.evolve(WorkerConfig(), queues=("a", "b")).consumed == ("a", "b")
