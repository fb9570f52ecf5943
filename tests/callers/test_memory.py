"""The memory broker and backend for callers in any thread of the process, whatever runs there."""

import threading
from collections import Counter

import pytest
import trio

from chicory import Chicory, RemoteTaskError, ResultTimeout, TaskState
from chicory.brokers.memory import MemoryBroker
from chicory.errors import QueueFull, ResultUnknown, UsageError
from chicory.ids import new_id
from chicory.outcome import Done, Failed
from chicory.testing import memory_app, running_worker
from tests.callers.callers import KINDS, open_caller
from tests.contract.harness import OOPS, finish_all, message, receive, settle, worker


@pytest.fixture
def app():
    app = memory_app()

    @app.task(name="add")
    async def add(x: int, y: int) -> int:
        return x + y

    return app


@pytest.fixture(params=KINDS)
async def caller(request, app):
    async with open_caller(request.param) as opened:
        yield opened
        await opened.close(app)


async def waiting(app, task_id):
    """Returns when somebody waits for the end of *task_id*."""
    with trio.fail_after(5):
        while not app.backend._waiting.get(task_id):
            await trio.sleep(0.001)


async def test_a_call_arrives_and_its_end_is_told(app, caller):
    got = []
    for outcome in (Done(42), Failed(OOPS)):
        result = await caller.delay(app.tasks["add"], 2, 40)
        assert await caller.state(result) is TaskState.PENDING

        async def get(result=result):
            try:
                got.append(await caller.get(result))
            except RemoteTaskError as failed:
                got.append(failed.failure)

        async with worker(app.broker) as consumer, trio.open_nursery() as nursery:
            nursery.start_soon(get)
            await waiting(app, result.id)
            assert await settle(consumer, await receive(consumer, 1), outcome) == [True]

    assert got == [42, OOPS]
    assert not app.backend._waiting


async def test_a_worker_that_waits_hears_of_a_call_from_anywhere(app, caller):
    with trio.fail_after(5):
        async with running_worker(app, scheduler=True):
            results = [await caller.delay(app.tasks["add"], number, 1) for number in range(10)]
            later = await caller.delay(app.tasks["add"].options(delay=0.02), 40, 2)

            assert [await caller.get(result) for result in results] == [*range(1, 11)]
            assert await caller.get(later) == 42


async def test_waiting_ends_in_time(app, caller):
    result = await caller.delay(app.tasks["add"], 2, 3)

    with trio.fail_after(5):
        for timeout in (0, 0.02):
            with pytest.raises(ResultTimeout):
                await caller.get(result, timeout)
        with pytest.raises(ResultUnknown):
            await caller.get(app.result(new_id()), None)
    assert not app.backend._waiting


class TrioAlone(MemoryBroker):
    """One that somebody wrote for trio."""

    callers = ("trio",)


async def test_a_broker_for_trio_alone_says_so_to_all_others(caller):
    app = Chicory(TrioAlone())
    kind = type(caller).__name__.removesuffix("Caller").lower()

    if kind == "trio":
        await caller.publish(app, message())
        return
    with pytest.raises(UsageError, match=rf"^TrioAlone has no way for {kind} callers; call from trio, or give the app"):
        await caller.publish(app, message())


async def test_many_come_in_order_and_a_full_queue_says_how_many(caller):
    app = Chicory(MemoryBroker(max_stream_length=5))
    sent = [message() for _ in range(8)]

    with pytest.raises(QueueFull) as full:
        await caller.publish_many(app, sent)

    assert full.value.published == 5
    assert [one.message.id for one in await finish_all(app.broker, expected=5)] == [one.id for one in sent[:5]]


async def test_no_call_of_many_threads_is_lost_or_run_twice(app):
    ran = Counter()
    failed = []

    @app.task(name="count")
    async def count(key: str) -> str:
        ran[key] += 1
        return key

    def call(thread: int) -> None:
        try:
            for number in range(100):
                key = f"{thread}:{number}"
                assert count.delay_sync(key).get_sync(20) == key
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=call, args=[number]) for number in range(4)]
    with trio.fail_after(30):
        async with running_worker(app):
            for thread in threads:
                thread.start()
            for thread in threads:
                await trio.to_thread.run_sync(thread.join)

    assert not failed
    assert len(ran) == 400
    assert set(ran.values()) == {1}


def test_a_run_in_one_thread_works_for_those_in_another():
    app = memory_app()

    @app.task
    async def double(x: int) -> int:
        return 2 * x

    async def work():
        async with running_worker(app) as worker:
            await worker.settled(2)

    async def ask():
        with trio.fail_after(5):
            return await (await double.delay(4)).get()

    thread = threading.Thread(target=trio.run, args=[work])
    thread.start()
    assert double.delay_sync(3).get_sync(5) == 6
    assert trio.run(ask) == 8
    thread.join()
