"""Runs that hang although their time is over, on every broker: they are failures, and others take their places."""

import threading

import pytest
import trio

from chicory import Chicory, RemoteTaskError, RetryPolicy, TaskState
from chicory.testing import running_worker


async def test_a_place_is_free_again_although_its_run_goes_on(harness):
    app, go = Chicory(harness.broker, harness.backend), threading.Event()

    @app.task(name="hang", timeout=0.05, retry_policy=RetryPolicy(max_retries=3, retry_delay=0))
    def hang() -> str:
        go.wait(20)
        return "late"

    @app.task(name="work")
    async def work(x: int) -> int:
        return x

    with trio.fail_after(20):
        async with running_worker(app, concurrency=1, timeout_grace=0.1, shutdown_timeout=5.0) as worker:
            hung, after = await hang.delay(), await work.delay(7)
            with pytest.raises(RemoteTaskError, match=r"TaskTimeout: .* it was abandoned and went on"):
                await hung.get()
            assert await after.get() == 7
            (letter,) = await app.broker.get_dlq_messages()
            assert letter.task_id == hung.id
            go.set()
            while worker.abandoned:
                await trio.sleep(0.01)

    assert await hung.state() is TaskState.DEAD_LETTERED
    assert (worker.report()["settled"], worker.report()["dead"], worker.report()["stale"]) == (2, 1, 0)
    sizes = await app.broker.get_queue_sizes()
    assert (sizes.ready, sizes.delayed, sizes.delivered, sizes.dead) == (0, 0, 0, 1)
