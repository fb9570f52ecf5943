"""Middleware of the running side, around tasks of every flavor, and of the sending side where it waits."""

import asyncio
import contextvars
import threading

import pytest
import sniffio
import trio
from msgspec.structs import replace

from chicory import RemoteTaskError, RetryPolicy, TaskContext, TaskMessage, ValidationMode
from chicory.app import Chicory
from chicory.errors import UsageError
from chicory.testing import memory_app, running_worker
from chicory.types import BackendType, BrokerType
from tests.trio.books import close_books

PATIENCE = 30
tenant = contextvars.ContextVar("tenant", default="nobody")


@pytest.fixture
async def app():
    app = memory_app(retry_policy=RetryPolicy(max_retries=0))
    with trio.fail_after(PATIENCE):
        yield app
        await close_books(app)


@pytest.fixture(params=["trio", "asyncio", "thread"])
def doubling(app, request):
    """A task of each kind, that notes what it was given; on two it fails, on three it rests."""
    began = threading.Event()

    def begin(context, x):
        doubling.given.append((x, dict(context.headers), tenant.get()))
        if x == 2:
            raise KeyError("two")
        began.set()

    if request.param == "thread":

        @app.task(name="double")
        def doubling(context: TaskContext, x: int) -> int:
            begin(context, x)
            return 2 * x
    else:

        @app.task(name="double", flavor=request.param)
        async def doubling(context: TaskContext, x: int) -> int:
            begin(context, x)
            if x == 3:
                await (trio if request.param == "trio" else asyncio).sleep(PATIENCE)
            return 2 * x

    doubling.given, doubling.began, doubling.kind = [], began, request.param
    return doubling


async def test_it_surrounds_the_run_and_sees_how_it_ended(app, doubling):
    said = []

    @app.on_run
    async def outer(message, call_next):
        said.append(f"outer {message.args[0]}")
        try:
            return await call_next(message) + 1
        except KeyError as error:
            said.append(str(error))
            raise LookupError("no such number") from error

    @app.on_run
    async def inner(message, call_next):
        said.append(f"inner {sniffio.current_async_library()}")
        return 10 * await call_next(message)

    async with running_worker(app):
        assert await (await doubling.delay(1)).get() == 21
        with pytest.raises(RemoteTaskError, match="LookupError: no such number"):
            await (await doubling.delay(2)).get()

    where = "asyncio" if doubling.kind == "asyncio" else "trio"
    assert said == ["outer 1", f"inner {where}", "outer 2", f"inner {where}", "'two'"]


async def test_what_it_passes_on_is_what_the_task_is_given(app, doubling):
    @app.on_run
    async def change(message, call_next):
        tenant.set("7")
        return await call_next(replace(message, args=[message.args[0] + 10], headers={"changed": "yes"}))

    async with running_worker(app):
        assert await (await doubling.delay(1)).get() == 22

    assert doubling.given == [(11, {"changed": "yes"}, "7")]
    assert tenant.get() == "nobody"


async def test_it_may_answer_in_the_place_of_the_task_or_fail_it(app, doubling):
    @app.on_run
    async def known(message, call_next):
        if message.args[0] == 7:
            raise PermissionError("seven")
        return "known"

    async with running_worker(app):
        assert await (await doubling.delay(1)).get() == "known"
        with pytest.raises(RemoteTaskError, match="PermissionError: seven"):
            await (await doubling.delay(7)).get()

    assert doubling.given == []


@pytest.mark.parametrize("doubling", ["trio", "asyncio"], indirect=True)
async def test_a_cancelled_run_passes_it_and_is_given_back(app, doubling):
    said = []

    @app.on_run
    async def watch(message, call_next):
        try:
            return await call_next(message)
        finally:
            said.append("cleaned up")

    async with running_worker(app) as worker:
        await doubling.send(3)
        await trio.to_thread.run_sync(doubling.began.wait)
        worker.hurry()

    assert said == ["cleaned up"]
    assert (await app.broker.get_queue_sizes()).ready == 1


async def test_its_time_is_part_of_the_runs(app, doubling):
    @app.on_run
    async def slow(message, call_next):
        await (asyncio if doubling.kind == "asyncio" else trio).sleep(PATIENCE)
        return await call_next(message)

    async with running_worker(app):
        with pytest.raises(RemoteTaskError, match="TaskTimeout"):
            await (await doubling.options(timeout=0.05).delay(1)).get()


async def test_each_try_passes_it_and_what_is_sent_only_once(app):
    runs, sent = [], []

    @app.on_send
    async def sending(message, call_next):
        sent.append(message.id)
        await call_next(message)

    @app.on_run
    async def running(message, call_next):
        runs.append((message.id, message.retries))
        return await call_next(message)

    @app.task(retry_policy=RetryPolicy(max_retries=2, retry_delay=0.01))
    async def fail() -> None:
        raise ValueError

    async with running_worker(app):
        result = await fail.delay()
        with pytest.raises(RemoteTaskError):
            await result.get()

    assert sent == [result.id]
    assert runs == [(result.id, retries) for retries in range(3)]


async def test_changed_arguments_are_held_to_the_hints(app):
    strict = Chicory(BrokerType.MEMORY, BackendType.MEMORY, validation_mode=ValidationMode.STRICT)

    @strict.task(retry_policy=RetryPolicy(max_retries=0))
    async def double(x: int) -> int:
        return 2 * x

    @strict.on_run
    async def spoil(message, call_next):
        if message.args == [1]:
            message = replace(message, args=["one"])
        value = await call_next(message)
        return "two" if value == 4 else value

    async with running_worker(strict):
        for given, why in ((1, "x must be int, not str"), (2, "must be int, not str")):
            with pytest.raises(RemoteTaskError, match=why):
                await (await double.delay(given)).get()
        assert await (await double.delay(3)).get() == 6


async def test_what_waits_on_the_sending_side_may_wait_where_it_knows_the_library(app):
    @app.on_send
    async def patient(message, call_next):
        with trio.fail_after(PATIENCE):
            await trio.sleep(0.001)
            await call_next(message)
            await trio.sleep(0.001)

    results = await app.publish_many([TaskMessage(name="work", args=[number]) for number in range(3)])
    assert (await app.broker.get_queue_sizes()).ready == len(results)


async def test_a_sync_call_cannot_wait_for_what_it_waits_for(app):
    @app.on_send
    async def patient(message, call_next):
        await asyncio.sleep(0)
        await call_next(message)

    with pytest.raises(UsageError, match="a sync call waits for the broker alone"):
        await trio.to_thread.run_sync(app.publish_sync, TaskMessage(name="work"))


async def test_who_is_cancelled_while_sending_leaves_the_middleware_in_order(app, monkeypatch):
    said = []

    @app.on_send
    async def patient(message, call_next):
        try:
            with trio.CancelScope():
                await call_next(message)
        finally:
            said.append(message.name)

    async def hang(_):
        await trio.sleep_forever()

    monkeypatch.setattr(app.broker, "publish_many", hang)
    with trio.move_on_after(0.01) as scope:
        await app.publish_many([TaskMessage(name=name) for name in ("first", "second")])

    assert scope.cancelled_caught
    assert said == ["second", "first"]
