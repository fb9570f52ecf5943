"""Cancelling tasks: queued, delayed, running, and too late."""

import threading

import pytest
import trio

from chicory import DeliveryMode, RetryPolicy, TaskCancelled, TaskContext, TaskState
from chicory.app import Chicory
from chicory.backends.memory import MemoryBackend
from chicory.brokers.memory import MemoryBroker
from chicory.brokers.memory.consumer import MemoryConsumer
from chicory.errors import UsageError
from chicory.result import AsyncResult
from chicory.testing import running_worker


class Apart(MemoryBackend):
    def joins(self, broker):
        return False


@pytest.fixture(params=[MemoryBackend, Apart])
def app(request):
    return Chicory(MemoryBroker(), request.param())


async def test_what_is_queued_is_never_started(autojump_clock, app, books):
    ran = []

    @app.task
    async def note(word: str) -> None:
        ran.append(word)

    results = [await note.delay(word) for word in ("one", "two", "three")]
    assert await results[1].cancel()
    assert await results[1].state() is TaskState.CANCELLED
    assert (await app.broker.get_queue_sizes()).ready == 3
    with pytest.raises(TaskCancelled):
        await results[1].get()

    async with running_worker(app) as worker:
        await worker.settled(3)
    assert ran == ["one", "three"]
    assert await results[1].state() is TaskState.CANCELLED
    assert (await app.broker.counters())["failed"] == 1
    assert await app.broker.get_dlq_count() == 0


async def test_what_is_delayed_is_cancelled_at_once_and_settled_when_due(autojump_clock, app, books):
    ran = []

    @app.task
    async def note() -> None:
        ran.append(True)

    async with running_worker(app) as worker:
        result = await note.options(delay=100).delay()
        assert await app.cancel(result.id)
        assert await result.state() is TaskState.CANCELLED
        assert worker.report()["settled"] == 0
        await trio.sleep(101)
        await worker.settled(1)

    assert ran == []


async def test_what_runs_is_cancelled_and_may_clean_up(autojump_clock, app, books):
    ends = []

    @app.task
    async def nap() -> None:
        try:
            await trio.sleep(1000)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(3)
                ends.append(trio.current_time())

    @app.task
    async def other() -> str:
        await trio.sleep(50)
        return "rested"

    async with running_worker(app) as worker:
        result, beside = await nap.delay(), await other.delay()
        await worker.busy(2)
        began = trio.current_time()
        assert await result.cancel()
        assert await result.state() is TaskState.CANCELLED
        await worker.settled(1)
        assert await beside.get() == "rested"

    assert ends[0] - began == pytest.approx(3, abs=0.1)
    assert await result.state() is TaskState.CANCELLED
    assert (await app.broker.counters())["failed"] == 1


async def test_only_the_run_that_is_meant_is_cancelled(autojump_clock, app, books):
    @app.task
    async def nap(x: int) -> int:
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(1000):
            await trio.sleep(30)
        return x

    async with running_worker(app, concurrency=50) as worker:
        results = [await nap.delay(x) for x in range(50)]
        await worker.busy(50)
        for result in results[::2]:
            assert await result.cancel()
        ends = [await result.wait() for result in results]

    assert [end.state for end in ends] == [TaskState.CANCELLED, TaskState.SUCCESS] * 25
    assert [end.value for end in ends[1::2]] == [*range(1, 50, 2)]


@pytest.mark.parametrize("end", ["returns", "raises", "retries", "snoozes"])
async def test_whatever_a_run_makes_of_it_it_was_cancelled(autojump_clock, app, books, end):
    @app.task(retry_policy=RetryPolicy(max_retries=3))
    async def stubborn(context: TaskContext) -> str:
        try:
            await trio.sleep(1000)
        finally:
            match end:
                case "returns":
                    return "no"  # noqa: B012
                case "raises":
                    raise ValueError
                case "retries":
                    context.retry()
                case _:
                    context.snooze(5)

    async with running_worker(app) as worker:
        result = await stubborn.delay()
        await worker.busy()
        assert await result.cancel()
        await worker.settled(1)
        await trio.sleep(100)
        assert worker.report()["settled"] == 1

    assert await result.state() is TaskState.CANCELLED
    assert (await app.broker.get_queue_sizes()).dead == 0


async def test_a_thread_is_told_at_its_checkpoint(app, books):
    going = threading.Event()
    ended = []

    @app.task
    def dig(context: TaskContext) -> None:
        going.set()
        try:
            while True:
                context.checkpoint()
        finally:
            ended.append(True)

    async with running_worker(app) as worker:
        result = await dig.delay()
        await trio.to_thread.run_sync(going.wait, 10)
        assert await result.cancel()
        with trio.fail_after(10):
            await worker.settled(1)

    assert ended == [True]
    assert await result.state() is TaskState.CANCELLED


async def test_what_waits_in_a_worker_is_settled_at_once(autojump_clock, app, books):
    @app.task
    async def nap() -> None:
        await trio.sleep(1000)

    async with running_worker(app, concurrency=1, prefetch=5, shutdown_timeout=1) as worker:
        results = [await nap.delay() for _ in range(3)]
        await worker.busy()
        await trio.sleep(1)
        assert await results[2].cancel()
        await worker.settled(1)
        assert worker.running == 1


async def test_a_retry_that_waits_is_cancelled(autojump_clock, app, books):
    tries = []

    @app.task(retry_policy=RetryPolicy(max_retries=3, retry_delay=60))
    async def fail() -> None:
        tries.append(True)
        raise ValueError

    async with running_worker(app) as worker:
        result = await fail.delay()
        await worker.settled(1)
        assert await result.state() is TaskState.RETRY
        assert await result.cancel()
        await worker.settled(2)

    assert tries == [True]


async def test_at_most_once_is_cancelled_too(autojump_clock, app, books):
    @app.task(delivery_mode=DeliveryMode.AT_MOST_ONCE)
    async def metric() -> None:
        await trio.sleep(500)

    queued, running = await metric.delay(), await metric.delay()
    assert await queued.cancel()
    async with running_worker(app) as worker:
        await worker.busy()
        assert await running.cancel()
        await worker.settled(2)

    assert [await queued.state(), await running.state()] == [TaskState.CANCELLED] * 2


async def test_at_most_once_is_not_started_when_it_is_cancelled_while_it_is_acknowledged(
    autojump_clock, app, books, monkeypatch
):
    ran = []

    @app.task(delivery_mode=DeliveryMode.AT_MOST_ONCE)
    async def note(word: str) -> None:
        ran.append(word)

    async def slowly(consumer, deliveries):
        await trio.sleep(5)
        return await acknowledge(consumer, deliveries)

    acknowledge = MemoryConsumer.acknowledge
    monkeypatch.setattr(MemoryConsumer, "acknowledge", slowly)
    async with running_worker(app, concurrency=1, prefetch=1) as worker:
        first, second = await note.delay("one"), await note.delay("two")
        await worker.busy()
        assert await first.cancel()
        await second.get()

        assert await first.state() is TaskState.CANCELLED
    assert ran == ["two"]


async def test_what_is_finished_cannot_be_cancelled(autojump_clock, app, books):
    @app.task(retry_policy=RetryPolicy(max_retries=0))
    async def half(x: int) -> int:
        assert x % 2 == 0
        return x // 2

    async with running_worker(app):
        results = [await half.delay(x) for x in (2, 1)]
        ends = [(await result.wait()).state for result in results]
        assert [await result.cancel() for result in results] == [False, False]
        assert [await result.state() for result in results] == ends == [TaskState.SUCCESS, TaskState.DEAD_LETTERED]

        # Asked twice because an answer was lost, it was cancelled all the same.
        late = await half.options(delay=100).delay(2)
        assert [await late.cancel(), await late.cancel()] == [True, True]
        await trio.sleep(101)


async def test_a_cancelled_task_that_a_stopping_worker_gives_back_stays_cancelled(autojump_clock, app, books):
    ran = []

    @app.task
    async def nap() -> None:
        ran.append(True)
        await trio.sleep(1000)

    async with running_worker(app, concurrency=1, prefetch=3, shutdown_timeout=1) as worker:
        results = [await nap.delay() for _ in range(2)]
        await worker.busy()
        worker.quiet()
        worker.stop()
        assert await results[1].cancel()
    async with running_worker(app, concurrency=1) as worker:
        await worker.busy()
        assert await results[0].cancel()
        # The other one was settled here, or by the first worker on its way out.
        while (await app.broker.counters())["failed"] < 2:
            await trio.sleep(0.1)

    assert len(ran) == 2
    assert [await result.state() for result in results] == [TaskState.CANCELLED] * 2


async def test_without_results_a_task_is_cancelled_too(autojump_clock, books, app):
    ran = []

    @app.task(ignore_result=True)
    async def note() -> None:
        ran.append(True)

    result = await note.delay()
    assert await result.cancel()
    async with running_worker(app) as worker:
        await worker.settled(1)
    assert ran == []
    # It is settled, so its id means nothing any more.
    assert not app.broker._store.cancelled


async def test_who_knows_only_an_id_is_told_where_to_turn():
    with pytest.raises(UsageError, match=r"app\.cancel"):
        await AsyncResult("an-id", None).cancel()


class Plain:
    """A broker of somebody's own, which can neither cancel nor list its workers."""

    def __init__(self):
        self._broker = MemoryBroker()

    def __getattr__(self, name):
        if name in ("cancel", "get_active_workers"):
            raise AttributeError(name)
        return getattr(self._broker, name)


async def test_a_broker_that_can_neither_cancel_nor_list_its_workers_says_so():
    app = Chicory(Plain(), Apart())

    with pytest.raises(UsageError, match="keeps no list of cancelled tasks"):
        await app.cancel("never-sent")
    with pytest.raises(UsageError, match="knows no workers"):
        await app.backend.get_active_workers()
