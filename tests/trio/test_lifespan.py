"""What an app opens for a worker: before its first task, after its last, on the loop it is meant for."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio

from chicory import Chicory, RemoteTaskError, RetryPolicy, TaskContext, TaskMessage, Worker
from chicory.config import evolve
from chicory.errors import BrokerUnavailable, LifespanError, UsageError
from chicory.groups import sole
from chicory.testing import running_worker
from chicory.types import BackendType, BrokerType

PATIENCE = 30
FLAVORS = ("trio", "asyncio")


@attrs.frozen
class Resources:
    where: str
    said: list[str]


@pytest.fixture(autouse=True)
async def in_time():
    with trio.fail_after(PATIENCE):
        yield


def make(lifespan, flavor="trio", **more):
    return Chicory(
        BrokerType.MEMORY,
        BackendType.MEMORY,
        retry_policy=RetryPolicy(max_retries=0),
        lifespan=lifespan,
        flavor=flavor,
        **more,
    )


def sleep(flavor):
    return trio.sleep if flavor == "trio" else asyncio.sleep


def recording(flavor, said):
    """A lifespan that notes its steps, and needs its own loop for each."""

    async def lifespan(app: Chicory) -> AsyncIterator[Resources]:
        await sleep(flavor)(0.001)
        said.append(f"{flavor} begun")
        try:
            yield Resources(flavor, said)
        finally:
            await sleep(flavor)(0.001)
            said.append(f"{flavor} ended")

    return lifespan


@pytest.mark.parametrize("flavor", FLAVORS)
async def test_it_surrounds_all_tasks_and_they_find_what_it_gave(flavor):
    said = []
    app = make(recording(flavor, said), flavor)

    @app.task
    async def note(context: TaskContext[Resources], word: str) -> str:
        await sleep(flavor)(0.01)
        context.state.said.append(word)
        return context.state.where

    @app.task
    def in_a_thread(context: TaskContext[Resources]) -> str:
        context.state.said.append("thread")
        return context.state.where

    async with running_worker(app) as worker:
        assert said == [f"{flavor} begun"]
        assert await (await in_a_thread.delay()).get() == flavor
        result = await note.delay("last")
        await worker.busy()

    assert await result.get() == flavor
    assert said == [f"{flavor} begun", "thread", "last", f"{flavor} ended"]


async def test_each_flavor_may_have_one_and_its_tasks_find_their_own():
    said = []
    app = make({flavor: recording(flavor, said) for flavor in FLAVORS}, "asyncio")

    @app.task(flavor="trio")
    async def on_trio(context: TaskContext[Resources]) -> str:
        return context.state.where

    @app.task
    async def on_asyncio(context: TaskContext[Resources]) -> str:
        return context.state.where

    @app.task
    def thread(context: TaskContext[Resources]) -> str:
        return context.state.where

    async with running_worker(app):
        found = [await (await task.delay()).get() for task in (on_trio, on_asyncio, thread)]

    assert found == ["trio", "asyncio", "asyncio"]
    assert said == ["trio begun", "asyncio begun", "asyncio ended", "trio ended"]


async def test_a_task_of_the_other_flavor_finds_the_one_there_is():
    app = make(recording("trio", []))

    @app.task(flavor="asyncio")
    async def read(context: TaskContext[Resources]) -> str:
        return context.state.where

    async with running_worker(app):
        assert await (await read.delay()).get() == "trio"


async def test_a_context_manager_will_do_and_so_will_no_value():
    @asynccontextmanager
    async def lifespan(app):
        yield

    app = make(lifespan)

    @app.task
    async def look(context: TaskContext) -> bool:
        return context.state is None

    async with running_worker(app):
        assert await (await look.delay()).get() is True


async def test_where_none_was_entered_the_state_is_no_silent_none():
    app = make(None)

    @app.task
    async def look(context: TaskContext[Resources]) -> str:
        return context.state.where

    async with running_worker(app):
        with pytest.raises(RemoteTaskError, match="UsageError: no lifespan was entered here"):
            await (await look.delay()).get()
    with pytest.raises(UsageError, match=r"in tests TaskContext\(..., state=...\)"):
        await look()

    assert await look.function(TaskContext(TaskMessage(name="look"), state=Resources("test", []))) == "test"


async def failing_at_its_start(app):
    raise OSError("no such database")
    yield


async def failing_at_its_end(app):
    yield
    raise OSError("no such database")


async def one_that_yields_never(app):
    return
    yield


def plain(app):
    return 3


@pytest.mark.parametrize("flavor", FLAVORS)
@pytest.mark.parametrize(
    ("lifespan", "why"),
    [
        (failing_at_its_start, "failed at its start: OSError: no such database"),
        (failing_at_its_end, "failed: OSError: no such database"),
        (one_that_yields_never, "failed at its start: RuntimeError: generator didn't yield"),
        (plain, "failed at its start: UsageError: a lifespan gives an async context manager"),
    ],
)
async def test_one_that_fails_ends_the_worker_and_is_told_of(flavor, lifespan, why, caplog):
    app = make(lifespan, flavor)
    worker = Worker(app, burst=True)

    with pytest.raises(LifespanError, match=f"the {flavor} lifespan of the app {why}"):
        await worker.run()

    (record,) = [record for record in caplog.records if "lifespan" in record.getMessage()]
    assert record.exc_info
    assert worker.fetched == 0


async def test_what_is_open_already_is_closed_when_the_next_cannot_be_opened():
    said = []
    app = make({"trio": recording("trio", said), "asyncio": failing_at_its_start})

    with pytest.raises(LifespanError, match="the asyncio lifespan"):
        await Worker(app).run()

    assert said == ["trio begun", "trio ended"]


@pytest.mark.parametrize("flavor", FLAVORS)
async def test_a_worker_that_is_stopped_while_one_is_entered_leaves_at_once(flavor):
    begun, said = threading.Event(), []

    async def slow(app):
        begun.set()
        try:
            await sleep(flavor)(PATIENCE)
        finally:
            said.append("cancelled")
        yield

    worker = Worker(make({"trio": recording("trio", said), flavor: slow}))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await trio.to_thread.run_sync(begun.wait)
        assert worker.state == "entering"
        worker.stop()

    assert said in (["cancelled"], ["trio begun", "cancelled", "trio ended"])


@pytest.mark.parametrize("flavor", FLAVORS)
async def test_tasks_that_a_cancelled_worker_cancels_still_have_it(flavor):
    said, begun = [], threading.Event()
    app = make(recording(flavor, said), flavor)

    @app.task
    async def rest(context: TaskContext[Resources]) -> None:
        try:
            begun.set()
            await sleep(flavor)(PATIENCE)
        finally:
            context.state.said.append("task ended")

    worker = Worker(app)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await rest.send()
        await trio.to_thread.run_sync(begun.wait)
        nursery.cancel_scope.cancel()

    assert said == [f"{flavor} begun", "task ended", f"{flavor} ended"]


@pytest.mark.parametrize("flavor", FLAVORS)
async def test_one_that_does_not_end_is_cancelled_when_the_time_is_over(flavor, caplog):
    said = []

    async def slow(app):
        yield
        try:
            await sleep(flavor)(PATIENCE)
        finally:
            said.append("cancelled")

    app = make(slow, flavor)
    async with running_worker(app, shutdown_timeout=0.05, cancel_grace=0.05):
        pass

    assert said == ["cancelled"]
    assert f"the {flavor} lifespan of the app did not end in time" in caplog.text


async def test_one_that_does_not_end_even_so_is_left_to_the_process():
    left = []

    async def stubborn(app):
        yield
        with trio.CancelScope(shield=True):
            await over.wait()

    def leave(count):
        left.append(count)
        over.set()

    over = trio.Event()
    app = make(stubborn)
    worker = Worker(app, evolve(app.config.worker, shutdown_timeout=0.05, cancel_grace=0.05), leave=leave)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run)
        await worker.joined()
        worker.stop()

    assert left == [1]


async def test_a_nursery_of_the_lifespan_ends_the_worker_when_what_is_in_it_fails():
    async def with_a_nursery(app):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            yield
            nursery.cancel_scope.cancel()

    async def fail():
        await failing.wait()
        raise ValueError("in the background")

    failing = trio.Event()
    worker = Worker(make(with_a_nursery))
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run)
            await worker.joined()
            failing.set()

    error = sole(caught.value)
    assert isinstance(error, LifespanError)
    assert "ValueError: in the background" in str(error)


async def test_a_loop_that_breaks_takes_its_lifespan_and_so_the_worker_with_it():
    async def lifespan(app):
        yield asyncio.get_running_loop()

    app = make(lifespan, "asyncio")

    @app.task
    async def wreck(context: TaskContext[asyncio.AbstractEventLoop]) -> None:
        selector = context.state._selector

        def select(timeout):
            del selector.select
            raise OSError(9, "Bad file descriptor")

        selector.select = select
        await asyncio.sleep(0.001)

    await wreck.send()
    with pytest.raises(LifespanError, match="the asyncio loop that it ran on broke"):
        await Worker(app).run()


async def test_the_workers_own_errors_are_not_the_lifespans():
    seen = []

    async def lifespan(app):
        try:
            yield
        except BaseException as error:
            seen.append(error)
            raise

    app = make(lifespan)

    class Away:
        def __getattr__(self, name):
            return getattr(broker, name)

        def consumer(self, *_, **__):
            raise BrokerUnavailable("away")

    broker = app.broker
    app._ends = (Away(), app.backend, False)
    with pytest.raises(BrokerUnavailable):
        await Worker(app, evolve(app.config.worker, require_broker=True), scheduler=False).run()

    assert seen == []


@pytest.mark.parametrize("given", [3, {"trio": 3}, {"curio": plain}])
async def test_what_is_none_is_refused(given):
    with pytest.raises(UsageError, match=r"async generator function of the app|flavor must be one of"):
        make(given)
