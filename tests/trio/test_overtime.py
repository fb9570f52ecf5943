"""Runs that do not end although their time is over."""

import threading

import pytest
import trio

from chicory import RemoteTaskError, RetryPolicy, TaskCancelled, TaskContext, TaskState
from chicory.config import evolve
from chicory.testing import running_worker
from chicory.worker.overtime import FEW
from chicory.worker.worker import Worker

GRACE = 10
RETRIED = RetryPolicy(max_retries=3, retry_delay=1)
TOLD = "took longer than 5 s, and had not ended 10 s after; it was abandoned and went on"


@pytest.fixture
def go():
    """Lets go of what hangs, at the latest when the test ends."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def hang(app, go):
    @app.task(name="hang", timeout=5, retry_policy=RETRIED)
    def hang(context: TaskContext) -> str:
        go.wait(20)
        context.progress(1, 1, "late")
        return "late"

    return hang


@pytest.fixture
def work(app):
    @app.task(name="work")
    def work(x: int) -> int:
        return x

    return work


async def test_others_take_the_place_of_what_does_not_end(autojump_clock, app, books, caplog, go, hang, work):
    let_go = trio.Event()

    @app.task(name="shielded", timeout=5, retry_policy=RETRIED)
    async def shielded() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await let_go.wait()

    async with running_worker(app, concurrency=1, timeout_grace=GRACE) as worker:
        begun = trio.current_time()
        results = [await hang.delay(), await shielded.delay()]
        after = [await work.delay(x) for x in range(5)]

        for result in results:
            with pytest.raises(RemoteTaskError) as caught:
                await result.get()
            assert (caught.value.failure.type, caught.value.failure.message) == ("TaskTimeout", TOLD)
        assert trio.current_time() - begun == pytest.approx(2 * (5 + GRACE), abs=1)
        assert [await result.get() for result in after] == [0, 1, 2, 3, 4]
        assert [message.name for message in worker.abandoned] == ["hang", "shielded"]
        assert (worker.running, worker.held, worker.get_stats()["abandoned"]) == (0, 0, 2)
        assert worker.tasks() == []

        go.set()
        let_go.set()
        while worker.abandoned:
            await trio.sleep(1)
        # A look at what there is to be noted.
        await trio.sleep(1)
        for result in results:
            info = await result.info()
            assert (info.state, info.progress) == (TaskState.DEAD_LETTERED, None)

    assert worker.report() == {"fetched": 7, "settled": 7, "dead": 2, "done": 5, "stale": 0, "left": 0}
    for name, result in zip(("hang", "shielded"), results, strict=True):
        said = [text for text in caplog.messages if text.startswith(f"{name} ({result.id})")]
        assert [text.partition(result.id)[2][:12] for text in said] == [") has run for", "), which was"] or said
        assert "has run for 15." in said[0]
        assert "has ended after" in said[1]


async def test_a_clean_up_within_the_grace_is_left_alone(autojump_clock, app, books):
    @app.task(timeout=5, retry_policy=RETRIED)
    async def tidy(context: TaskContext) -> str:
        if context.retries:
            return "again"
        with trio.CancelScope(shield=True):
            await trio.sleep(5 + GRACE - 1)
        return "late"

    async with running_worker(app, concurrency=1, timeout_grace=GRACE):
        assert await (await tidy.delay()).get() == "again"


async def test_only_so_many_are_abandoned_and_then_the_worker_is_worn(autojump_clock, app, books, caplog, go, hang):
    async with running_worker(app, concurrency=1, timeout_grace=GRACE) as worker:
        results = [await hang.delay() for _ in range(FEW + 1)]
        with pytest.raises(RemoteTaskError):
            await results[FEW - 1].get()
        assert worker.beat()["worn"] == f"{FEW} runs that it has abandoned go on"
        await worker.busy()
        await trio.sleep(100)

        assert (len(worker.abandoned), worker.running) == (FEW, 1)
        assert [text for text in caplog.messages if "it takes a fresh worker" in text] == [
            f"{FEW} abandoned runs go on; it takes a fresh worker to abandon more"
        ]
        # What becomes of the last one is a race, as threads take real time and virtual time flies.
        go.set()
        await results[FEW].wait()
        while worker.abandoned:
            await trio.sleep(1)
        assert worker.beat()["worn"] == ""


async def test_what_was_cancelled_and_does_not_end_is_abandoned_too(autojump_clock, app, books, go, hang, work):
    async with running_worker(app, concurrency=1, timeout_grace=GRACE) as worker:
        result = await hang.delay()
        await worker.busy()
        await result.cancel()
        assert await (await work.delay(7)).get() == 7
        with pytest.raises(TaskCancelled):
            await result.get()
        assert len(worker.abandoned) == 1
        go.set()


async def test_a_worker_that_stops_does_not_wait_for_what_it_has_abandoned(autojump_clock, app, books, go, hang):
    left = []

    def leave(count):
        left.append((count, trio.current_time()))
        go.set()

    @app.task
    async def nap() -> None:
        await trio.sleep(20)

    config = evolve(app.config.worker, concurrency=2, timeout_grace=GRACE, shutdown_timeout=100)
    worker = Worker(app, config, clock=trio.current_time, leave=leave)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        result = await hang.delay()
        with pytest.raises(RemoteTaskError):
            await result.get()
        await nap.send()
        await worker.busy()
        asked = trio.current_time()
        worker.stop()

    ((count, at),) = left
    assert count == 0
    assert at - asked == pytest.approx(20, abs=1)
    assert worker.report()["done"] == 1
