"""Context variables that go with the message: set in its runs, in no others, and nowhere afterwards."""

from contextlib import contextmanager
from contextvars import Context, ContextVar
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
import trio
from msgspec.structs import replace

from chicory import RemoteTaskError, RetryPolicy, TaskContext, TaskDeadLettered, TaskMessage
from chicory.app import Chicory
from chicory.carried import CARRIED
from chicory.errors import PayloadError, UsageError
from chicory.scheduler.scheduler import Scheduler
from chicory.testing import memory, running_worker
from chicory.types import BackendType, BrokerType
from tests.trio import tenants
from tests.trio.books import close_books
from tests.trio.tenants import found, locale, tenant, trace

PATIENCE = 30
KINDS = ["at-once", "timed", "waits", "asyncio", "thread", "process"]
UNREADABLE = "PayloadError: carried context variable 'tenant': it cannot be read"
NOTHING = ["nobody", "unset", "none"]


@pytest.fixture
async def app():
    # One for all: what runs in a child process is found by its module.
    with trio.fail_after(PATIENCE):
        yield tenants.app
        await close_books(tenants.app)
    tenants.app.run_middleware = ()


@pytest.fixture
async def own():
    """One that the test may add to."""
    own = tenants.tenants()
    with trio.fail_after(PATIENCE):
        yield own
        await close_books(own)


@contextmanager
def known_as(name, word=None):
    before = tenant.set(name)
    try:
        if word is None:
            yield
        else:
            with _speaking(word):
                yield
    finally:
        tenant.reset(before)


@contextmanager
def _speaking(word):
    before = locale.set(word)
    try:
        yield
    finally:
        locale.reset(before)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_run_finds_what_its_caller_had_and_nothing_of_another_run(app, kind):
    task = app.tasks[kind]

    async with running_worker(app, concurrency=3):
        results = []
        for number in range(6):
            with known_as(number, "it" if number % 2 else None):
                results += [await task.delay()]
            results += [await task.delay()]
        there = [await result.get() for result in results]

    assert there[1::2] == [NOTHING] * 6
    assert there[::2] == [[number, "it" if number % 2 else "unset", "none"] for number in range(6)]
    assert found() == NOTHING


@pytest.mark.parametrize("kind", KINDS)
async def test_what_whoever_started_the_worker_had_is_no_part_of_a_run(app, kind):
    task = app.tasks[kind]
    trace.set("of the worker")
    result = await task.delay()

    with known_as("whoever", "it"):
        async with running_worker(app):
            there = await result.get()

    assert there == ["nobody", "unset", "none" if kind == "process" else "of the worker"]


async def test_every_way_of_sending_carries_and_each_call_what_was_set_at_it(app):
    task, far = app.tasks["at-once"], app.remote("at-once")

    with known_as("a"):
        early = task.message()
    with known_as("b"):
        results = [
            await task.delay(),
            app.result(await task.send()),
            await task.options(headers={"x": "y"}, expires=60).delay(),
            await far.delay(),
            *await app.publish_many(task.message() for _ in range(2)),
            *await app.publish_many([early, far.message()]),
            await trio.to_thread.run_sync(task.delay_sync),
            *await far.starmap([(), ()]),
        ]

    async with running_worker(app):
        there = [(await result.get())[0] for result in results]
    assert there == ["b"] * 6 + ["a"] + ["b"] * 4


async def test_values_of_every_kind_that_travels_arrive_as_they_are(app):
    when, key = datetime(2030, 1, 2, tzinfo=UTC), UUID(int=5)
    values = [None, True, 7, 2.5, "ü\n", ["a"], {"$a": 1}, when, key, Decimal("1.0"), b"\0"]
    seen = []

    @app.on_run
    async def note(message, call_next):
        seen.append(tenant.get())
        return await call_next(message)

    async with running_worker(app):
        for value in values:
            with known_as(value):
                result = await app.tasks["process"].delay()
            assert (await result.get())[0] == value

    assert seen == values


@pytest.mark.parametrize("kind", ["waits", "asyncio", "thread", "process"])
async def test_middleware_finds_it_and_what_it_sets_the_task_finds(app, kind):
    seen = []

    @app.on_run
    async def translate(message, call_next):
        seen.append(tenant.get())
        locale.set("it")
        return await call_next(message)

    with known_as("ann"):
        result = await app.tasks[kind].delay()
    async with running_worker(app):
        assert await result.get() == ["ann", "it", "none"]

    assert seen == ["ann"]


async def test_a_task_that_sends_another_carries_on_and_so_does_each_try(own):
    seen = []

    @own.task(name="relay", retry_policy=RetryPolicy(max_retries=1, retry_delay=0.01))
    async def relay(context: TaskContext) -> str:
        seen.append(tenant.get())
        assert context.headers == {"x": "y"}
        if not context.retries:
            raise ConnectionError
        return await own.tasks["thread"].send()

    with known_as("ann"):
        result = await relay.options(headers={"x": "y"}).delay()
    async with running_worker(own):
        assert (await own.result(await result.get()).get())[0] == "ann"

    assert seen == ["ann", "ann"]


async def test_a_dead_letter_that_is_put_back_brings_it_along(own):
    seen = []

    @own.task(name="fails-once")
    async def fails_once() -> None:
        seen.append(tenant.get())
        if len(seen) == 1:
            raise ConnectionError

    with known_as("ann"):
        result = await fails_once.delay()
    async with running_worker(own):
        with pytest.raises(TaskDeadLettered):
            await result.get()
        (letter,) = await own.broker.get_dlq_messages()
        await own.broker.replay_from_dlq(letter.message_id)
        await result.get()

    assert seen == ["ann", "ann"]


async def test_a_slot_is_nobodys_call_and_carries_nothing(autojump_clock, own):
    own.schedule(own.tasks["at-once"], every=20)

    with known_as(object()):
        own.schedule(own.tasks["waits"], every=20)
        async with running_worker(own, scheduler=False) as worker, trio.open_nursery() as nursery:
            nursery.start_soon(Scheduler(own.broker, ["default"], app=own).run)
            await trio.sleep(21)
            await worker.idle()
            nursery.cancel_scope.cancel()

    books = await own.broker.counters("default")
    assert books["done"] == books["published"] >= 2


async def test_what_is_carried_for_another_app_is_no_matter(app):
    message = app.tasks["at-once"].message()
    headers = {CARRIED + "colour": "{", CARRIED + "tenant": '"ann"'}

    async with running_worker(app):
        await app.publish(replace(message, headers=headers))
        assert await app.result_of(message).get() == ["ann", "unset", "none"]


@pytest.mark.parametrize("text", ["", "{", '{"$uuid":"no"}', '{"$what":1}', "[" * 8000, "NaN"])
async def test_a_value_that_cannot_be_read_costs_its_message_alone(app, text):
    message = replace(app.tasks["at-once"].message(), headers={CARRIED + "tenant": text})

    async with running_worker(app):
        await app.publish(message)
        with pytest.raises(RemoteTaskError, match=UNREADABLE):
            await app.result_of(message).get()
        assert await (await app.tasks["at-once"].delay()).get() == NOTHING
    assert await app.broker.purge_dlq() == 1


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (object(), "a object is not JSON; pass plain values"),
        ([1, {"a": float("nan")}], "nan is not JSON"),
        ("\ud800", "it cannot be encoded"),
        ("a" * 9000, "9002 characters, and all headers may have 8192; carry an id"),
    ],
)
async def test_a_value_that_cannot_travel_is_the_callers_error_and_names_the_variable(app, value, why):
    with known_as(value), pytest.raises(PayloadError, match=r"^carried context variable 'tenant'") as caught:
        await app.tasks["at-once"].send()

    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_it_counts_as_the_headers_do(app):
    small = {"x": "y" * 8000}

    with known_as("a" * 300), pytest.raises(PayloadError, match="the headers exceed 8192 characters"):
        await app.tasks["at-once"].options(headers=small).send()


def test_its_headers_are_nobody_elses_to_set():
    with pytest.raises(UsageError, match="'chicory-carried-tenant' is one; set the variable, or leave it out"):
        tenants.app.tasks["at-once"].options(headers={CARRIED + "tenant": '"ann"'})


@pytest.mark.parametrize(
    ("carry", "why"),
    [
        ([tenant, ContextVar("tenant")], "two context variables named 'tenant'"),
        ([tenant, tenant], "two context variables named 'tenant'"),
        (tenant, "takes a list of context variables"),
        ("tenant", "and 't' is none"),
        ([ContextVar("the tenant")], "the name of context variable 'the tenant' must be letters"),
    ],
)
def test_what_cannot_be_carried_is_refused_when_the_app_is_made(carry, why):
    with pytest.raises(UsageError, match=why):
        Chicory(BrokerType.MEMORY, carry=carry)


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_drain_carries_too(kind, eager):
    task = tenants.app.tasks[kind]
    with memory(tenants.app, eager=eager) as queues:
        with known_as("ann"):
            ours = await task.send()
        bare = Context().run(task.message)
        with known_as("whoever"):
            await tenants.app.publish(bare)
            await queues.drain()

        assert {run.task_id: run.value for run in queues.ran} == {ours: ["ann", "unset", "none"], bare.id: NOTHING}


def test_an_app_that_carries_nothing_sends_nothing_more():
    app = Chicory(BrokerType.MEMORY, BackendType.MEMORY)

    with known_as("ann"):
        assert app.remote("far").message().headers == {}
    assert app.carried is None
    assert Chicory(BrokerType.MEMORY, carry=()).carried is None
    assert TaskContext(TaskMessage(name="x", headers={CARRIED + "a": "1", "b": "c"})).headers == {"b": "c"}
