"""What users test their apps with on trio, where a drain is a part of the test's own run."""

import itertools
import time
from datetime import timedelta

import pytest
import trio

from chicory import Chicory, RetryPolicy, TaskContext, TaskState
from chicory.clock import unix_now
from chicory.testing import Undrained, memory, memory_app, running_worker
from chicory.testing.drain import PATIENCE


@pytest.fixture
def app():
    return Chicory("redis://127.0.0.1:1/0", retry_policy=RetryPolicy(max_retries=1, retry_delay=60, jitter=0))


@pytest.fixture
def queues(app):
    with memory(app) as queues:
        yield queues


async def test_tasks_share_the_run_of_the_test(app, queues):
    opened = trio.Event()

    @app.task(name="open")
    async def open_it() -> None:
        opened.set()

    await open_it.options(delay=3600).send()
    began = time.monotonic()

    assert [run.state for run in await queues.drain()] == [TaskState.SUCCESS]
    assert opened.is_set()
    assert time.monotonic() - began < 5


async def test_retries_are_waited_for_in_real_runs_too(app, queues):
    @app.task(name="fail")
    def fail() -> None:
        raise ValueError("no")

    result = await fail.delay()

    assert [run.delay for run in await queues.drain()] == [60, None]
    assert await result.state() is TaskState.DEAD_LETTERED
    assert await app.broker.get_dlq_count() == 1


async def test_virtual_time_is_the_run_s(app, queues, autojump_clock):
    @app.task(name="slow", timeout=100)
    async def slow() -> float:
        await trio.sleep(50)
        return unix_now()

    began, unix = trio.current_time(), unix_now()
    await slow.options(delay=10).send()

    (run,) = await queues.drain(within=timedelta(minutes=5))

    assert run.value == pytest.approx(unix + 60)
    assert trio.current_time() - began == pytest.approx(300)
    assert queues.clock.time() == pytest.approx(unix + 300)


async def test_a_worker_beside_the_test_hears_that_time_was_moved(app, queues):
    @app.task(name="later")
    async def later() -> str:
        return "done"

    result = await later.options(delay=86400).delay()
    with trio.fail_after(5):
        async with running_worker(app) as worker:
            queues.clock.advance(86400)

            assert await result.get() == "done"
            # Nobody could renew a lease while time was moved.
            assert worker.state == "working"
            assert (await app.broker.counters())["reclaimed"] == 0


async def test_a_timeout_hears_that_time_was_moved(app, queues, mock_clock):
    started = trio.Event()

    @app.task(name="slow", timeout=100, retry_policy=RetryPolicy(max_retries=0))
    async def slow() -> None:
        started.set()
        await trio.sleep_forever()

    result = await slow.delay()
    async with running_worker(app):
        await started.wait()
        queues.clock.advance(101)

        assert (await result.wait()).failure.type == "TaskTimeout"


async def test_time_stands_still_while_a_thread_works(app, queues, autojump_clock):
    @app.task(name="busy", timeout=5)
    def busy() -> str:
        time.sleep(0.02)
        return "done"

    began = trio.current_time()
    await busy.send()

    assert [run.value for run in await queues.drain()] == ["done"]
    assert trio.current_time() == began
    assert autojump_clock.autojump_threshold == 0


async def test_asyncio_tasks_run_and_may_wait_for_others(app, queues, autojump_clock):
    @app.task(name="slow")
    async def slow(x: int) -> int:
        await trio.sleep(600)
        return x

    @app.task(name="outer", flavor="asyncio", timeout=3600)
    async def outer(x: int) -> int:
        import asyncio

        await asyncio.sleep(0)
        return await (await slow.delay(x)).get() + 1

    await outer.send(1)

    assert {run.task_name: run.value for run in await queues.drain()} == {"slow": 1, "outer": 2}


async def test_eager_tasks_run_in_the_run_of_the_caller(app):
    ran = []

    @app.task(name="inner")
    async def inner(x: int) -> int:
        ran.append(trio.lowlevel.current_trio_token())
        return x

    @app.task(name="sync")
    def sync(x: int) -> int:
        return inner.delay_sync(x).get_sync() + 1

    @app.task(name="outer")
    async def outer(x: int) -> int:
        return await (await inner.delay(x)).get() + await (await sync.delay(x)).get()

    with memory(app, eager=True, propagate=True) as queues:
        assert await (await outer.delay(1)).get() == 3
        with pytest.raises(TypeError, match="str"):
            await outer.delay("1")

        assert queues.enqueued() == []
    assert ran[0] is trio.lowlevel.current_trio_token()


async def test_a_drain_may_be_given_up(app, queues):
    @app.task(name="hang")
    async def hang() -> None:
        await trio.sleep_forever()

    await hang.send()

    with trio.move_on_after(0.02) as scope:
        await queues.drain()

    assert scope.cancelled_caught
    queues.assert_enqueued(hang, times=1)


async def test_what_does_not_end_is_an_error(app, queues, autojump_clock):
    @app.task(name="hang")
    async def hang() -> None:
        await trio.sleep(PATIENCE + 1)

    await hang.send()

    with pytest.raises(Undrained, match="does not end"):
        await queues.drain()


def test_a_run_of_ones_own_is_served_like_a_test_s(app):
    @app.task(name="double")
    async def double(x: int) -> int:
        return 2 * x

    async def main() -> list:
        with memory(app) as queues:
            await double.send(21)
            return [run.value for run in await queues.drain()]

    assert trio.run(main) == [42]


@pytest.mark.parametrize("virtual", [True, False])
async def test_schedules_fire_by_the_run_s_clock_or_by_the_test_s(app, queues, virtual, request):
    if virtual:
        request.getfixturevalue("autojump_clock")
    ran = []

    @app.every(hours=1)
    @app.task(name="beat")
    async def beat(context: TaskContext) -> None:
        ran.append((context.slot.timestamp(), int(unix_now())))

    runs = await queues.drain(within=timedelta(days=1))

    assert [run.state for run in runs] == [TaskState.SUCCESS] * 24
    assert ran == [(slot, slot) for slot, _ in ran]
    assert [after - before for (before, _), (after, _) in itertools.pairwise(ran)] == [3600] * 23


@pytest.mark.parametrize("beside", [True, False])
async def test_a_deadline_is_when_the_run_is_cancelled_by_the_clock_that_passes(app, autojump_clock, beside):
    """Also where a worker runs beside a test that has no clock but trio's."""

    @app.task(name="wait", timeout=3600)
    async def wait(context: TaskContext) -> float:
        await trio.sleep(1800)
        return context.deadline.timestamp() - unix_now()

    await trio.sleep(86400)
    if beside:
        own = memory_app()
        wait = own.task(name="wait", timeout=3600)(wait.function)
        async with running_worker(own):
            left = await (await wait.delay()).get()
    else:
        with memory(app) as queues:
            await wait.send()
            left = (await queues.drain())[0].value

    assert left == pytest.approx(1800, abs=1)
