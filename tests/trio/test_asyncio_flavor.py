"""Tasks that are written for asyncio, on real time: another thread works while trio has nothing to do."""

import asyncio
import contextvars
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
import trio

from chicory import Chicory, RemoteTaskError, RetryPolicy, TaskContext
from chicory.config import evolve
from chicory.errors import UsageError
from chicory.testing import memory_app, running_worker
from chicory.types import BackendType, BrokerType
from chicory.worker import watchdog as module
from chicory.worker.tasktree import task_tree
from chicory.worker.watchdog import Watchdog
from chicory.worker.worker import Worker
from tests.trio.books import close_books

PATIENCE = 30
LOOP = "chicory asyncio"


@pytest.fixture
async def app():
    app = memory_app(retry_policy=RetryPolicy(max_retries=0))
    with trio.fail_after(PATIENCE):
        yield app
        await close_books(app)
    assert not [thread for thread in threading.enumerate() if thread.name == LOOP]


async def failure(task, *args):
    with pytest.raises(RemoteTaskError) as caught:
        await (await task.delay(*args)).get()
    return caught.value.failure


async def test_they_run_together_on_one_loop_in_one_thread(app):
    place = []

    @app.task(flavor="asyncio")
    async def meet(number: int) -> int:
        place.append((asyncio.get_running_loop(), threading.current_thread().name))
        while len(place) < 50:
            await asyncio.sleep(0.001)
        return number

    async with running_worker(app, concurrency=50):
        results = await app.publish_many([meet.message(number) for number in range(50)])

        assert [await result.get() for result in results] == [*range(50)]

    assert len(set(place)) == 1
    assert place[0][1] == LOOP
    assert place[0][0].is_closed()


async def test_the_app_says_for_all_and_a_task_for_itself():
    app = Chicory(BrokerType.MEMORY, BackendType.MEMORY, flavor="asyncio")

    @app.task
    async def there(context: TaskContext) -> str:
        await asyncio.sleep(0)
        return context.task_name

    @app.task(flavor="trio")
    async def here() -> str:
        await trio.sleep(0)
        return "here"

    @app.task
    def thread() -> str:
        return threading.current_thread().name

    async with running_worker(app):
        assert await (await there.delay()).get() == there.name
        assert await (await here.delay()).get() == "here"
        assert await (await thread.delay()).get() != LOOP


async def test_a_flavor_that_is_none_is_refused(app):
    with pytest.raises(UsageError, match=r"one of 'trio', 'asyncio', not 'curio'"):
        app.task(flavor="curio")
    with pytest.raises(UsageError, match="runs in a thread; leave out its flavor"):

        @app.task(flavor="asyncio")
        def plain() -> None: ...


async def test_a_worker_without_such_tasks_has_no_such_thread(app):
    @app.task
    async def here() -> bool:
        return any(thread.name == LOOP for thread in threading.enumerate())

    async with running_worker(app):
        assert await (await here.delay()).get() is False


async def test_when_its_time_is_over_it_is_cancelled_and_cleans_up(app):
    said = []

    @app.task(flavor="asyncio", timeout=0.05)
    async def rest() -> None:
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            said.append("cancelled")
            raise
        finally:
            await asyncio.sleep(0.01)
            said.append("cleaned up")

    async with running_worker(app):
        failed = await failure(rest)

    assert failed.type == "TaskTimeout"
    assert said == ["cancelled", "cleaned up"]


async def test_an_error_of_its_clean_up_is_told_with_the_timeout(app):
    @app.task(flavor="asyncio", timeout=0.05)
    async def rest() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(PATIENCE))
        finally:
            raise ValueError("no such file")

    async with running_worker(app):
        failed = await failure(rest)

    assert (failed.type, failed.message) == (
        "TaskTimeout",
        "took longer than 0.05 s, and then raised ValueError: no such file",
    )


async def test_what_a_stopping_worker_cancels_is_given_back(app):
    begun, ended = threading.Event(), threading.Event()

    @app.task(flavor="asyncio")
    async def rest() -> None:
        begun.set()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(asyncio.sleep(PATIENCE))
        finally:
            ended.set()

    async with running_worker(app) as worker:
        await rest.send()
        await trio.to_thread.run_sync(begun.wait)
        worker.hurry()

    assert ended.is_set()
    assert (await app.broker.get_queue_sizes()).ready == 1


async def test_a_cancelled_run_that_ends_otherwise_has_ended_so(app):
    begun = threading.Event()

    @app.task(flavor="asyncio")
    async def stubborn() -> str:
        begun.set()
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            return "done all the same"

    async with running_worker(app) as worker:
        result = await stubborn.delay()
        await trio.to_thread.run_sync(begun.wait)
        worker.hurry()

    assert await result.get() == "done all the same"


async def test_every_way_to_fail_is_a_failure_of_this_task_alone(app):
    @app.task(flavor="asyncio")
    async def plain() -> None:
        raise KeyError("no such order")

    @app.task(flavor="asyncio")
    async def leave() -> None:
        raise SystemExit(3)

    async def broken() -> None:
        raise SystemExit(4)

    @app.task(flavor="asyncio")
    async def child_leaves() -> None:
        await asyncio.create_task(broken())

    async def bad(number: int) -> None:
        raise ValueError(number)

    @app.task(flavor="asyncio")
    async def group() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(bad(1))
            group.create_task(bad(2))

    @app.task(flavor="asyncio")
    async def cancels_itself() -> None:
        asyncio.current_task().cancel()
        await asyncio.sleep(0)

    @app.task(flavor="asyncio")
    async def gives_up(context: TaskContext) -> None:
        context.fail("no use")

    class Untraceable(Exception):
        @property
        def __traceback__(self):
            raise SystemExit

    @app.task(flavor="asyncio")
    async def untraceable() -> None:
        raise Untraceable

    ways = (plain, leave, child_leaves, group, cancels_itself, gives_up, untraceable)
    begun, over = threading.Event(), threading.Event()

    @app.task(flavor="asyncio")
    async def sibling() -> str:
        begun.set()
        while not over.is_set():
            await asyncio.sleep(0.001)
        return "well"

    async with running_worker(app):
        beside = await sibling.delay()
        await trio.to_thread.run_sync(begun.wait)
        failures = [await failure(task) for task in ways]
        over.set()

        assert await beside.get() == "well"

    assert [failed.type for failed in failures] == [
        *("KeyError", "SystemExit", "SystemExit", "ExceptionGroup", "CancelledError", "GiveUp", "Untraceable")
    ]
    assert failures[0].traceback.splitlines()[1].endswith("in plain")
    assert "ValueError: 2" in failures[3].traceback


async def test_a_task_that_stops_the_loop_stops_nobody(app):
    @app.task(flavor="asyncio")
    async def stop() -> str:
        asyncio.get_running_loop().stop()
        await asyncio.sleep(0.001)
        return "still here"

    async with running_worker(app):
        assert await (await stop.delay()).get() == "still here"


async def test_an_exception_of_a_callback_is_in_the_log_and_harms_nobody(app, caplog):
    def fail(error: BaseException) -> None:
        raise error

    @app.task(flavor="asyncio")
    async def careless() -> str:
        loop = asyncio.get_running_loop()
        for error in (ValueError("in a callback"), SystemExit(5)):
            loop.call_soon(fail, error)
            await asyncio.sleep(0.001)
        return "well"

    async with running_worker(app):
        assert await (await careless.delay()).get() == "well"

    told = [record.getMessage() for record in caplog.records if record.name in ("asyncio", "chicory.worker")]
    assert any("Exception in callback" in text for text in told)
    assert any("SystemExit(5) left a callback" in text for text in told)


async def test_a_loop_that_breaks_fails_what_is_on_it_and_another_takes_its_place(app, caplog):
    begun, cleaned = threading.Event(), threading.Event()

    @app.task(flavor="asyncio")
    async def rest() -> None:
        begun.set()
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            cleaned.set()

    @app.task(flavor="asyncio")
    async def wreck() -> None:
        selector = asyncio.get_running_loop()._selector

        def select(timeout):
            del selector.select
            raise OSError(9, "Bad file descriptor")

        selector.select = select
        await asyncio.sleep(0.001)

    @app.task(flavor="asyncio")
    async def double(x: int) -> int:
        return 2 * x

    async with running_worker(app):
        beside = await rest.delay()
        await trio.to_thread.run_sync(begun.wait)
        failed = await failure(wreck)
        with pytest.raises(RemoteTaskError, match="the asyncio loop that it ran on broke"):
            await beside.get()

        assert await (await double.delay(21)).get() == 42

    assert failed.type == "RuntimeError"
    assert "Bad file descriptor" in failed.traceback
    assert cleaned.is_set()
    assert "the asyncio loop broke" in caplog.text


async def test_what_a_run_leaves_behind_ends_with_it(app, caplog):
    ended = []

    async def linger(name: str) -> None:
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            ended.append(name)
            await asyncio.sleep(0.01)
            ended.append(f"{name} cleaned up")

    @app.task(flavor="asyncio")
    async def careless(name: str) -> str:
        keep.append(asyncio.create_task(linger(name)))
        await asyncio.sleep(0)
        return name

    keep = []
    async with running_worker(app):
        assert await (await careless.delay("a")).get() == "a"
        assert ended == ["a", "a cleaned up"]
        assert await (await careless.delay("b")).get() == "b"

    told = [text for text in caplog.messages if "was left running" in text]
    assert len(told) == 1
    assert "linger" in told[0]


async def test_what_is_begun_in_a_context_of_its_own_outlives_the_run_and_ends_with_the_worker(app):
    keep, ended = [], []

    async def background() -> None:
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            ended.append(True)

    @app.task(flavor="asyncio")
    async def begin() -> None:
        keep.append(asyncio.create_task(background(), context=contextvars.Context()))
        await asyncio.sleep(0)

    @app.task(flavor="asyncio")
    async def lives() -> bool:
        return not keep[0].done()

    async with running_worker(app):
        await (await begin.delay()).get()
        assert await (await lives.delay()).get() is True

    assert ended == [True]


async def test_a_snooze_runs_it_again(app):
    runs = []

    @app.task(flavor="asyncio")
    async def later(context: TaskContext) -> int:
        runs.append(1)
        if len(runs) == 1:
            context.snooze(0.01)
        return len(runs)

    async with running_worker(app):
        assert await (await later.delay()).get() == 2


async def test_a_context_variable_set_in_one_run_is_not_seen_by_the_next(app):
    tenant = contextvars.ContextVar("tenant", default="nobody")

    @app.task(flavor="asyncio")
    async def visit(name: str) -> str:
        before = tenant.get()
        tenant.set(name)
        await asyncio.sleep(0)
        assert await asyncio.create_task(asyncio.sleep(0, tenant.get())) == name
        return before

    async with running_worker(app, concurrency=2):
        results = await app.publish_many([visit.message(str(number)) for number in range(20)])

        assert {await result.get() for result in results} == {"nobody"}


async def test_httpx_works_there(app):
    class Hello(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.path.encode())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Hello)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    @app.task(flavor="asyncio")
    async def fetch(path: str) -> str:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"http://127.0.0.1:{server.server_port}/{path}")).text

    try:
        async with running_worker(app):
            results = await app.publish_many([fetch.message(str(number)) for number in range(5)])

            assert [await result.get() for result in results] == [f"/{number}" for number in range(5)]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_a_task_that_holds_the_loop_is_named_and_holds_nobody_else(app, monkeypatch, caplog):
    monkeypatch.setattr(module, "TICK", 0.01)
    over, texts = threading.Event(), []
    monkeypatch.setattr(module, "_tell", texts.append)

    @app.task(flavor="asyncio", name="selfish")
    async def selfish() -> None:
        over.wait(PATIENCE)

    @app.task
    async def neighbour() -> str:
        return "well"

    watchdog = Watchdog(None, 30, late=0.05)
    async with running_worker(app) as worker, trio.open_nursery() as nursery:
        nursery.start_soon(watchdog.watch, worker.flavors)
        held = await selfish.delay()
        assert await (await neighbour.delay()).get() == "well"
        while not texts:
            await trio.sleep(0.001)
        over.set()
        await held.get()
        while not any("turns again" in text for text in caplog.messages):
            await trio.sleep(0.001)
        nursery.cancel_scope.cancel()

    (text,) = texts
    assert text.startswith("the asyncio loop has stood still for 0.")
    assert f"it runs selfish ({held.id}), at\n" in text
    assert "over.wait(PATIENCE)" in text
    assert "asyncio_loop.py" not in text


async def test_the_tree_shows_where_it_waits(app):
    begun = threading.Event()

    @app.task(flavor="asyncio", name="resting")
    async def rest() -> None:
        begun.set()
        await asyncio.sleep(PATIENCE)

    async with running_worker(app) as worker:
        await rest.send()
        await trio.to_thread.run_sync(begun.wait)
        tree = task_tree()
        worker.hurry()

    (line,) = [line for line in tree.splitlines() if "resting" in line]
    assert line.endswith("in rest")
    assert "test_asyncio_flavor.py" in line


async def test_a_loop_that_does_not_end_is_left_to_the_process(app):
    over, left = threading.Event(), []

    def leave(count: int) -> None:
        left.append(count)
        over.set()

    async def hang() -> None:
        while not over.is_set():
            try:
                await asyncio.sleep(PATIENCE)
            except asyncio.CancelledError:
                over.wait(PATIENCE)

    @app.task(flavor="asyncio")
    async def begin() -> None:
        keep.append(asyncio.create_task(hang(), context=contextvars.Context()))

    keep = []
    worker = Worker(app, evolve(app.config.worker, cancel_grace=0.05), leave=leave)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await (await begin.delay()).get()
        worker.stop()

    assert left == [1]
