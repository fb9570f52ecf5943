"""What may be known of a task while it is on its way, and of many at once."""

import threading

import pytest
import trio

from chicory import (
    Progress,
    RemoteTaskError,
    ResultTimeout,
    RetryPolicy,
    TaskContext,
    TaskState,
    as_completed,
    gather,
)
from chicory.app import Chicory
from chicory.backends.memory import MemoryBackend
from chicory.brokers.memory import MemoryBroker
from chicory.errors import BrokerUnavailable, NoBackend, UsageError
from chicory.testing import running_worker


async def until(fact):
    with trio.fail_after(60):
        while not await fact():
            await trio.sleep(0.1)


async def test_a_run_of_half_a_second_is_noted_with_its_start_and_its_worker(autojump_clock, app):
    @app.task
    async def nap(seconds: float) -> None:
        await trio.sleep(seconds)

    async with running_worker(app, name="host:1") as worker:
        result = await nap.delay(10)
        await worker.busy()
        began = trio.current_time()
        assert await result.state() is TaskState.PENDING
        await trio.sleep(1.1)
        info = await result.info()
        assert (info.state, info.worker, info.attempts, info.retries) == (TaskState.STARTED, "host:1", 1, 0)
        assert not await result.ready()
        await result.get()

        done = await result.info()

    assert (done.state, done.worker, done.attempts) == (TaskState.SUCCESS, "host:1", 1)
    assert done.started_at == info.started_at
    assert (done.finished_at - done.started_at).total_seconds() == pytest.approx(10, abs=0.1)
    assert done.enqueued_at is not None
    assert began < trio.current_time()
    assert await result.ready()
    assert not await result.failed()


async def test_short_tasks_cost_no_note(autojump_clock):
    class Counting(MemoryBackend):
        noted = 0

        async def note(self, records):
            self.noted += len(records)
            await super().note(records)

    app = Chicory(MemoryBroker(), backend := Counting())

    @app.task
    async def nap(seconds: float) -> None:
        await trio.sleep(seconds)

    async with running_worker(app, concurrency=10):
        await gather(await app.publish_many([nap.message(0.4) for _ in range(100)]))
        assert backend.noted == 0

        # Once each, however long they take.
        await gather(await app.publish_many([nap.message(20) for _ in range(5)]))
        assert backend.noted == 5


async def test_each_attempt_is_a_step_forward(autojump_clock, app):
    @app.task(retry_policy=RetryPolicy(max_retries=1, retry_delay=30, jitter=0))
    async def fail() -> None:
        await trio.sleep(5)
        raise ValueError("always")

    seen = []
    async with running_worker(app):
        result = await fail.delay()
        while not seen or not seen[-1][0].finished:
            info = await result.info()
            if not seen or seen[-1] != (info.state, info.attempts, info.retries):
                seen.append((info.state, info.attempts, info.retries))
            await trio.sleep(1)

    assert seen == [
        (TaskState.PENDING, 0, 0),
        (TaskState.STARTED, 1, 0),
        (TaskState.RETRY, 1, 1),
        (TaskState.STARTED, 2, 1),
        (TaskState.DEAD_LETTERED, 2, 1),
    ]
    assert await result.failed()


async def test_progress_is_seen_and_the_last_word_is_kept(autojump_clock, app):
    @app.task
    async def climb(context: TaskContext) -> None:
        for step in range(40):
            context.progress(step, 40, f"step {step}")
            await trio.sleep(0.05)
        context.progress(40, 40)

    async with running_worker(app):
        result = await climb.delay()
        await until(lambda: _said(result))
        said = (await result.info()).progress
        assert said is not None
        assert 0 < said.done < 40
        assert (said.total, said.note) == (40, f"step {said.done:g}")
        await result.get()

    assert (await result.info()).progress == Progress(40, 40)


async def _said(result):
    progress = (await result.info()).progress
    return progress is not None and progress.done > 0


async def test_a_thread_tells_its_progress_too(app):
    going, seen = threading.Event(), threading.Event()

    @app.task
    def dig(context: TaskContext) -> None:
        context.progress(1, note="begun")
        going.set()
        assert seen.wait(10)

    async with running_worker(app):
        result = await dig.delay()
        await trio.to_thread.run_sync(going.wait, 10)
        await until(lambda: _said(result))
        assert (await result.info()).state is TaskState.STARTED
        seen.set()
        await result.get()


@pytest.mark.parametrize("done", [float("nan"), float("inf"), 10**400, "much", None])
async def test_nonsense_about_progress_does_not_fail_a_task(autojump_clock, app, done):
    @app.task
    async def boast(context: TaskContext) -> int:
        context.progress(done, done, "\ud800")
        await trio.sleep(2)
        return 7

    async with running_worker(app):
        assert await (await boast.delay()).get() == 7


async def test_a_backend_that_is_away_costs_no_task(autojump_clock, caplog):
    class Away(MemoryBackend):
        away = True

        async def note(self, records):
            if self.away:
                raise BrokerUnavailable("cut")
            await super().note(records)

    app = Chicory(MemoryBroker(), backend := Away())

    @app.task
    async def nap(context: TaskContext) -> str:
        await trio.sleep(20)
        return "rested"

    async with running_worker(app):
        result = await nap.delay()
        await trio.sleep(5)
        assert await result.state() is TaskState.PENDING
        backend.away = False
        await trio.sleep(1.1)
        assert await result.state() is TaskState.STARTED
        assert await result.get() == "rested"
    assert caplog.text.count("cannot note which tasks run") == 1


async def test_gather_gives_what_tasks_returned_in_the_order_asked_for(autojump_clock, app):
    @app.task
    async def nap(seconds: float) -> float:
        await trio.sleep(seconds)
        return seconds

    async with running_worker(app):
        results = await app.publish_many([nap.message(seconds) for seconds in (3, 1, 2)])
        assert await gather([*results, results[0]]) == [3, 1, 2, 3]
        assert await gather([]) == []

        late = await app.publish_many([nap.message(seconds) for seconds in (1, 100)])
        with pytest.raises(ResultTimeout, match="1 of 2 tasks"):
            await gather(late, timeout=5)
        assert await gather(late) == [1, 100]


async def test_gather_waits_for_all_and_raises_the_first_error(autojump_clock, app):
    @app.task(retry_policy=RetryPolicy(max_retries=0))
    async def half(x: int) -> int:
        if x % 2:
            raise ValueError(f"{x} is odd")
        await trio.sleep(5)
        return x // 2

    async with running_worker(app):
        results = await app.publish_many([half.message(x) for x in (4, 3, 1)])
        with pytest.raises(ValueError, match="3 is odd"):
            await gather(results)
        assert await results[0].ready()

        two, *errors = await gather(results, return_exceptions=True)

    assert two == 2
    assert [str(error) for error in errors] == ["3 is odd", "1 is odd"]
    assert all(isinstance(error, RemoteTaskError) for error in errors)


async def test_results_come_as_their_tasks_complete(autojump_clock, app):
    @app.task
    async def nap(seconds: float) -> float:
        await trio.sleep(seconds)
        return seconds

    async with running_worker(app):
        results = await app.publish_many([nap.message(seconds) for seconds in (30, 10, 20, 10)])
        came = []
        async for result in as_completed(results):
            assert trio.current_time() == pytest.approx(trio.current_time())
            came.append(await result.get(timeout=0))
            if len(came) == 2:
                assert not await results[0].ready()

        assert came == [10, 10, 20, 30]
        late = await app.publish_many([nap.message(seconds) for seconds in (1, 100)])
        with pytest.raises(ResultTimeout):
            async for result in as_completed(late, timeout=5):
                assert await result.get(timeout=0) == 1


async def test_results_that_are_nowhere_are_refused_at_once(autojump_clock, app):
    @app.task(ignore_result=True)
    async def forget() -> None: ...

    result = await forget.delay()
    for wait in (gather([result]), result.info(), result.get(), anext(as_completed([result]))):
        with pytest.raises(NoBackend):
            await wait
    elsewhere = Chicory(MemoryBroker(), MemoryBackend())
    with pytest.raises(UsageError, match="several backends"):
        await gather([app.result("a"), elsewhere.result("b")])
