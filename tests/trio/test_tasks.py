"""What a user writes: tasks, options and results."""

import functools
import gc
import importlib
import inspect
import math
from datetime import UTC, datetime, timedelta

import pytest
import trio

from chicory import AsyncResult, DeliveryMode, RetryPolicy, TaskContext, TaskState
from chicory.app import Chicory
from chicory.backends.memory import MemoryBackend
from chicory.brokers.memory import MemoryBroker
from chicory.errors import (
    ArgumentsError,
    ConfigError,
    DelayError,
    DuplicateTaskError,
    NoBackend,
    PayloadError,
    RemoteTaskError,
    ResultExpired,
    ResultTimeout,
    ResultUnknown,
    TaskDeadLettered,
    TaskNotFoundError,
    UsageError,
)
from chicory.testing import running_worker
from chicory.types import BackendType, BrokerType


async def ready(app, queue="default"):
    return (await app.broker.get_queue_sizes(queue)).ready


async def test_a_task_is_still_the_function_it_was(autojump_clock, app):
    @app.task
    async def double(x: int) -> int:
        """Twice as much."""
        return 2 * x

    @app.task()
    def halve(x: int) -> float:
        return x / 2

    assert await double(21) == 42
    assert halve(3) == 1.5
    assert double.__doc__ == "Twice as much."
    assert str(inspect.signature(double)) == "(x: int) -> int"
    assert double.name == f"{__name__}.test_a_task_is_still_the_function_it_was.double"
    assert set(app.tasks) == {double.name, halve.name}


async def test_delay_gives_the_result_of_async_and_sync_tasks(autojump_clock, app):
    @app.task
    async def double(x: int) -> int:
        await trio.sleep(1)
        return 2 * x

    @app.task
    def join(*words: str, sep: str = " ") -> str:
        return sep.join(words)

    async with running_worker(app):
        doubled = await double.delay(21)
        joined = await join.delay("a", "b", sep="-")

        assert await doubled.get(timeout=5) == 42
        assert await joined.get() == "a-b"
        assert await doubled.state() is TaskState.SUCCESS


async def test_send_gives_an_id_by_which_the_result_is_found(autojump_clock, app):
    @app.task(name="double")
    async def double(x: int) -> int:
        return 2 * x

    async with running_worker(app):
        task_id = await double.send(4)

        assert await app.result(task_id).get() == 8


async def test_a_task_that_wants_its_context_gets_it(autojump_clock, app):
    seen = []

    @app.task(queue="mail")
    async def look(context: TaskContext, x: int) -> None:
        seen.append((context.task_id, context.queue, context.retries, context.deliveries, dict(context.headers), x))

    @app.task
    def look_in_thread(context: TaskContext) -> str:
        context.checkpoint()
        return context.task_name

    async with running_worker(app, queues=("mail", "default")):
        task_id = await look.options(headers={"tenant": "7"}).send(3)
        named = await look_in_thread.delay()

        assert await named.get() == look_in_thread.name
        await app.result(task_id).get()

    assert seen == [(task_id, "mail", 0, 1, {"tenant": "7"}, 3)]
    assert look_in_thread() == look_in_thread.name


def test_the_context_comes_first_or_not_at_all(app):
    with pytest.raises(UsageError, match="must be the first parameter"):

        @app.task
        async def look(x: int, context: TaskContext) -> None: ...


async def test_arguments_that_do_not_fit_are_refused_before_anything_is_sent(autojump_clock, app):
    @app.task(name="pay")
    async def pay(amount: int, *, currency: str = "EUR") -> None: ...

    with pytest.raises(ArgumentsError, match=r"^pay\(amount: int, \*, currency: str = 'EUR'\) -> None: missing"):
        await pay.delay()
    with pytest.raises(ArgumentsError, match="unexpected keyword argument 'curency'"):
        await pay.send(1, curency="USD")
    with pytest.raises(PayloadError, match="a object is not JSON"):
        await pay.send(object())

    assert await ready(app) == 0


@pytest.mark.parametrize("delay", [-1, math.nan, math.inf, timedelta(seconds=-1), 1e30])
async def test_a_delay_that_is_no_delay_is_refused(autojump_clock, app, delay):
    @app.task
    async def nothing() -> None: ...

    with pytest.raises(DelayError):
        nothing.options(delay=delay)


async def test_a_delayed_task_runs_on_time(autojump_clock, app):
    ran = []

    @app.task
    async def note(word: str) -> None:
        ran.append((word, trio.current_time()))

    async with running_worker(app) as worker:
        start = trio.current_time()
        await note.options(delay=3600).send("delay")
        await note.options(delay=timedelta(minutes=1)).send("span")
        await note.options(eta=datetime.now(UTC) + timedelta(hours=2)).send("eta")
        await worker.settled(3)

    assert [word for word, _ in ran] == ["span", "delay", "eta"]
    for (_, at), due in zip(ran, (60, 3600, 7200), strict=True):
        assert due - 1 < at - start < due + 1


async def test_options_add_up_and_leave_the_task_as_it_was(autojump_clock, app):
    @app.task(queue="slow", timeout=9, priority=1)
    async def work() -> None: ...

    hurried = work.options(queue="fast", headers={"a": "b"}).options(priority=5, task_id="order-1", timeout=3)
    message = hurried.message()

    assert (message.id, message.queue, message.priority, message.timeout) == ("order-1", "fast", 5, 3)
    assert message.headers == {"a": "b"}
    assert (work.message().queue, work.message().priority, work.message().timeout) == ("slow", 1, 9)
    assert hurried.options(eta=datetime(2030, 1, 1, tzinfo=UTC)).options(delay=5).message().eta < datetime(
        2029, 1, 1, tzinfo=UTC
    )
    with pytest.raises(DelayError, match="not both"):
        work.options(delay=1, eta=datetime.now(UTC))


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf])
def test_a_limit_that_is_none_is_refused(app, timeout):
    with pytest.raises(UsageError, match="positive number of seconds"):
        app.task(timeout=timeout)


def test_a_retry_policy_that_is_none_is_refused(app):
    @app.task
    async def work() -> None: ...

    with pytest.raises(UsageError, match=r"^retry_policy must be a RetryPolicy, not 3$"):
        app.task(retry_policy=3)
    with pytest.raises(UsageError, match=r"^retry_policy must be a RetryPolicy, not 3$"):
        work.options(retry_policy=3)


def test_a_name_is_registered_once(app):
    @app.task(name="billing.charge")
    async def charge() -> None: ...

    with pytest.raises(DuplicateTaskError, match=r"'billing.charge' is registered twice.*test_tasks.py:\d+"):

        @app.task(name="billing.charge")
        async def other() -> None: ...

    with pytest.raises(TaskNotFoundError, match=r"did you mean 'billing.charge'\?"):
        app.find("billing.chrage")
    with pytest.raises(UsageError, match="options are given by keyword"):
        app.task("billing.charge")


def test_a_module_that_is_imported_once_more_is_told_so(app, tmp_path, monkeypatch):
    (tmp_path / "again.py").write_text("def declare(app):\n    @app.task\n    def work(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    again = importlib.import_module("again")
    again.declare(app)

    with pytest.raises(
        DuplicateTaskError,
        match=r"^task 'again.declare.work' is registered twice, by declare.<locals>.work \(.*again.py:2\) each time;"
        r" was its module reloaded, or imported under two names\? Begin a new process, or give",
    ):
        importlib.reload(again).declare(app)


@pytest.mark.parametrize("name", ["", "a b", "x" * 201, "é", 5, b"work"], ids=repr)
def test_a_name_that_no_message_can_carry_is_refused(app, name):
    with pytest.raises(PayloadError, match=r"^task name .{,80} must be letters, digits, '_', '.', ':' or '-', at most"):
        app.task(name=name)(numbers)
    with pytest.raises(PayloadError, match=r"^task name"):
        app.remote(name)


async def test_what_can_be_called_is_a_task_when_it_has_a_name(autojump_clock, app):
    class Doubler:
        async def __call__(self, x: int) -> int:
            return 2 * x

    with pytest.raises(UsageError, match=r"^a Doubler has no name of its own; give it one: app.task\(name="):
        app.task(Doubler())
    with pytest.raises(UsageError, match="has no name of its own"):
        app.task(functools.partial(max, 1))
    with pytest.raises(UsageError, match=r"task 'builtins.max': Python does not tell what arguments .* takes"):
        app.task(max)

    double = app.task(name="double")(Doubler())
    async with running_worker(app):
        assert await (await double.delay(21)).get() == 42


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ({"broker": 5}, "broker must be a BrokerType, a URL or a broker, not a int"),
        ({"broker": b"redis://:secret@host"}, "broker must be a BrokerType, a URL or a broker, not a bytes"),
        ({"backend": 5}, "backend must be a BackendType, a URL or a backend, not a int"),
        ({"config": {"worker": {}}}, r"config must be a ChicoryConfig, not a dict; load_config\(\) reads a file"),
        ({"delivery_mode": "twice"}, "delivery_mode must be 'at_least_once' or 'at_most_once', not 'twice'"),
        ({"validation_mode": "all"}, "validation_mode must be 'none', 'inputs', 'outputs' or 'strict', not 'all'"),
        ({"retry_policy": 3}, "retry_policy must be a RetryPolicy, not 3"),
        ({"flavor": "curio"}, "flavor must be one of 'trio', 'asyncio', not 'curio'"),
        ({"lifespan": 3}, "a lifespan is an async generator function of the app, not 3"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_an_app_cannot_be_made_of_is_refused_in_one_line(said, complaint):
    with pytest.raises(UsageError, match=rf"^{complaint}$"):
        Chicory(**said)


def test_a_method_is_no_task(app):
    class Mailer:
        def post(self, address: str) -> None: ...

        @classmethod
        def count(cls) -> int:
            return 0

        @staticmethod
        @app.task(name="check")
        def check(address: str) -> bool:
            return "@" in address

    with pytest.raises(UsageError, match=r"Mailer\.post is a method.*make the task a function"):
        app.task(Mailer.post)
    with pytest.raises(UsageError, match=r"Mailer\.post is a method"):
        app.task(name="post")(Mailer().post)
    with pytest.raises(UsageError, match=r"Mailer\.count is a method"):
        app.task(Mailer.count)

    assert list(app.tasks) == ["check"]
    assert Mailer.check("ann@example.com")


def numbers():
    yield 1


async def slow_numbers():
    yield 1


@pytest.mark.parametrize("function", [numbers, slow_numbers])
def test_a_generator_function_is_no_task(app, function):
    with pytest.raises(UsageError, match=f"{function.__name__}' is a generator function.*; return a list, or send"):
        app.task(function)

    assert not any(name.endswith(function.__name__) for name in app.tasks)


async def test_a_failure_is_raised_where_the_result_is_awaited(autojump_clock, app):
    @app.task(retry_policy=RetryPolicy(max_retries=0))
    async def fail() -> None:
        raise KeyError("no such order")

    async with running_worker(app):
        result = await fail.delay()
        with pytest.raises(RemoteTaskError, match="KeyError: 'no such order'") as caught:
            await result.get()
        # It is kept as a dead letter, and it is what it was.
        with pytest.raises(TaskDeadLettered):
            await result.get()
        with pytest.raises(KeyError):
            await result.get()

    assert (caught.value.type_name, caught.value.message) == ("KeyError", "'no such order'")
    trace = caught.value.traceback
    assert "in fail" in trace
    assert "execute.py" not in trace


async def test_a_result_that_does_not_come_in_time_is_a_timeout(autojump_clock, app):
    @app.task
    async def nap() -> str:
        await trio.sleep(100)
        return "rested"

    async with running_worker(app):
        result = await nap.delay()
        with pytest.raises(ResultTimeout) as caught:
            await result.get(timeout=10)

        assert isinstance(caught.value, TimeoutError)
        assert await result.state() is TaskState.STARTED
        assert await result.get() == "rested"


async def test_a_result_that_cannot_come_says_why(autojump_clock, app):
    @app.task(ignore_result=True)
    async def forget() -> None: ...

    with pytest.raises(ResultUnknown):
        await app.result("0" * 32).get()
    with pytest.raises(NoBackend, match="ignore_result=True"):
        await (await forget.delay()).get()
    with pytest.raises(NoBackend):
        await AsyncResult("x", None).state()


async def test_a_result_expires(autojump_clock):
    app = Chicory(MemoryBroker(), MemoryBackend(result_ttl=60))

    @app.task
    async def one() -> int:
        return 1

    async with running_worker(app):
        result = await one.delay()
        assert await result.get() == 1
        await trio.sleep(61)
        with pytest.raises(ResultExpired, match="result_ttl"):
            await result.get()


async def test_many_messages_are_published_in_one_go(autojump_clock, app):
    @app.task
    async def double(x: int) -> int:
        return 2 * x

    async with running_worker(app, concurrency=4):
        results = await app.publish_many([double.message(x) for x in range(50)])

        assert [await result.get() for result in results] == [2 * x for x in range(50)]


async def test_a_backend_that_does_not_join_is_told_what_to_expect(autojump_clock):
    class Apart(MemoryBackend):
        def joins(self, broker):
            return False

    app = Chicory(MemoryBroker(), Apart())

    @app.task
    async def double(x: int) -> int:
        return 2 * x

    result = await double.delay(1)
    many = await app.publish_many([double.message(x) for x in range(5)])
    assert await result.state() is TaskState.PENDING
    async with running_worker(app):
        assert await result.get() == 2
        assert [await one.get() for one in many] == [0, 2, 4, 6, 8]


def test_what_is_asked_for_is_what_is_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert type(Chicory(BrokerType.MEMORY).broker).__name__ == "MemoryBroker"
    assert type(Chicory(BrokerType.MEMORY).backend).__name__ == "MemoryBackend"
    assert Chicory(BrokerType.MEMORY, BackendType.NONE).backend is None
    assert Chicory(delivery_mode=DeliveryMode.AT_MOST_ONCE).delivery_mode is DeliveryMode.AT_MOST_ONCE
    embedded = Chicory()
    assert str(tmp_path) in str(embedded.broker)
    assert embedded.joined
    redis = Chicory("redis://redis.example.com:6380/2")
    assert "redis.example.com:6380" in str(redis.broker)
    assert redis.joined
    assert not Chicory("redis://a.example.com", "redis://b.example.com").joined
    assert Chicory(redis.broker).joined


def test_the_scheme_of_a_url_says_which_broker_it_is():
    app = Chicory("amqp://ann:secret@example.test/orders")

    assert app.config.broker.type is BrokerType.RABBITMQ
    assert repr(app.broker) == "<RabbitMQBroker amqp://example.test:5672/orders>"


def test_no_backend_is_spoken_to_by_amqp():
    with pytest.raises(ConfigError, match="no backend speaks"):
        Chicory(BrokerType.MEMORY, backend="amqp://localhost")


@pytest.mark.parametrize("url", ["reddis://localhost", "localhost:6379", "kafka://localhost"])
def test_a_url_that_nobody_speaks_is_refused(url):
    with pytest.raises(ConfigError, match="URL scheme"):
        Chicory(url)


@pytest.mark.parametrize("way", ["delay", "send"])
async def test_a_forgotten_await_warns_once_and_names_the_task(app, way):
    @app.task(name="mail.welcome")
    def welcome(user: int) -> None: ...

    with pytest.warns(RuntimeWarning, match=rf"coroutine 'mail\.welcome\.{way}' was never awaited") as told:
        # Nobody keeps it, so it is gone at once.
        getattr(welcome, way)(1)

    assert len(told) == 1
    assert await ready(app) == 0


async def test_an_await_that_was_not_forgotten_warns_of_nothing(app, nursery):
    @app.task
    def welcome(user: int) -> None: ...

    # Frameworks ask, before they call it.
    assert inspect.iscoroutinefunction(welcome.delay)
    nursery.start_soon(welcome.send, 1)
    await welcome.options(priority=1).delay(2)
    gc.collect()
