"""Calling tasks: many at once, those whose code is elsewhere, and what is wrong with a call."""

import inspect
import math
from datetime import UTC, datetime, timedelta

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from chicory import RemoteTaskError, RetryPolicy, Unique
from chicory.app import Chicory
from chicory.backends.memory import MemoryBackend
from chicory.batches import BATCH
from chicory.brokers.memory import MemoryBroker
from chicory.errors import ArgumentsError, DelayError, PayloadError, QueueFull, UsageError
from chicory.outcome import Dead, Done, RetryIn
from chicory.testing import running_worker
from chicory.types import TaskMessage
from tests.contract.harness import OOPS, message, receive, settle, worker


async def ready(app, queue="default"):
    return (await app.broker.get_queue_sizes(queue)).ready


@pytest.fixture
def double(app):
    @app.task(name="double")
    async def double(x: int) -> int:
        return 2 * x

    return double


async def test_map_calls_for_each_and_starmap_for_each_tuple(autojump_clock, app, double):
    @app.task
    def join(word: str, times: int = 2, *, sep: str = "-") -> str:
        return sep.join([word] * times)

    async with running_worker(app, concurrency=4):
        doubled = await double.map(range(5))
        joined = await join.starmap(zip("ab", (1, 3), strict=True))
        alone = await join.options(priority=1).map("cd")

        assert [await one.get() for one in doubled] == [0, 2, 4, 6, 8]
        assert [await one.get() for one in joined] == ["a", "b-b-b"]
        assert [await one.get() for one in alone] == ["c-c", "d-d"]


@pytest.mark.parametrize("nothing", [[], (), iter([])])
async def test_calling_for_nothing_is_allowed(app, double, nothing):
    assert await double.map(nothing) == []
    assert await app.publish_many(nothing) == []


async def test_of_a_generator_no_more_than_a_batch_is_in_memory(app, double):
    count, ahead = 5 * BATCH + 1, []

    def numbers():
        for number in range(count):
            ahead.append(number - app.broker._store.places("default").length)
            yield number

    results = await double.map(numbers())

    assert max(ahead) < BATCH
    assert len({result.id for result in results}) == count == await ready(app)


async def test_a_full_queue_in_the_middle_says_how_many_are_in(double):
    app = Chicory(MemoryBroker(max_stream_length=BATCH + 500), MemoryBackend())

    with pytest.raises(QueueFull) as full:
        await app.publish_many(double.message(x) for x in range(3 * BATCH))

    assert full.value.published == BATCH + 500 == await ready(app)
    assert f"{BATCH + 500} messages before that are published" in full.value.__notes__[0]


async def test_a_wrong_argument_in_the_middle_says_how_many_are_in(app, double):
    def arguments(wrong):
        yield from range(2 * BATCH)
        yield wrong

    with pytest.raises(PayloadError, match=r"args\[0\]: a set is not JSON") as caught:
        await double.map(arguments(set()))
    with pytest.raises(ArgumentsError, match="too many positional arguments"):
        await double.starmap([(1,), (2, 3)])

    assert caught.value.published == 2 * BATCH == await ready(app)


async def test_a_sequence_is_checked_whole_before_the_first_is_sent(app, double):
    messages = [double.message(x) for x in (*range(2 * BATCH), set())]

    with pytest.raises(PayloadError) as caught:
        await app.publish_many(messages)

    assert caught.value.published == 0 == await ready(app)


async def test_a_generator_that_fails_keeps_its_error(app, double):
    def numbers():
        yield from range(BATCH)
        raise KeyError("no such page")

    with pytest.raises(KeyError, match="no such page") as caught:
        await double.map(numbers())

    assert caught.value.__notes__ == [
        f"{BATCH} messages before that are published; repeat those that came after them only"
    ]
    assert await ready(app) == BATCH


async def test_many_calls_cannot_have_one_id(app, double):
    with pytest.raises(UsageError, match="a task_id is the id of one call"):
        await double.options(task_id="order-1").map([1, 2])

    assert await ready(app) == 0


async def test_a_task_is_called_by_name_where_its_code_is_not(autojump_clock):
    far, here = Chicory(MemoryBroker(), MemoryBackend()), None

    @far.task(name="billing.charge", queue="money", retry_policy=RetryPolicy(max_retries=0))
    async def charge(amount: int, currency: str = "EUR") -> str:
        return f"{amount} {currency}"

    here = Chicory(far.broker, far.backend)
    remote = here.remote("billing.charge").options(queue="money")

    async with running_worker(far, queues=("money",)):
        results = [await remote.delay(7), await remote.delay(8, currency="USD"), *await remote.map([9])]
        wrong = await remote.delay(1, 2, 3)

        assert [await one.get() for one in results] == ["7 EUR", "8 USD", "9 EUR"]
        # Nobody here knows what fits.
        with pytest.raises(RemoteTaskError, match="too many positional arguments"):
            await wrong.get()
    assert repr(remote) == "<remote task billing.charge>"
    assert not callable(remote)


def test_a_remote_task_says_all_that_a_task_says(app):
    remote = app.remote("billing.charge")
    eta = datetime(2030, 1, 1, tzinfo=UTC)

    message = remote.options(queue="slow", eta=eta, priority=3, timeout=5, task_id="a", headers={"b": "c"}).message(1)

    assert (message.name, message.args, message.id, message.queue) == ("billing.charge", [1], "a", "slow")
    assert (message.eta, message.priority, message.timeout, message.headers) == (eta, 3, 5, {"b": "c"})
    with pytest.raises(PayloadError, match="task name 'no name' must be"):
        app.remote("no name")


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"queue": "a b"}, "queue name 'a b' must be letters"),
        ({"queue": 5}, "queue must be a name, not 5"),
        ({"delay": -1}, "a delay of -1 s is out of range"),
        ({"delay": math.nan}, "a delay of nan s is out of range"),
        ({"delay": 10**400}, "a delay of 1000"),
        ({"delay": "soon"}, "a delay is a number of seconds or a timedelta, not 'soon'"),
        ({"delay": True}, "a delay is a number"),
        ({"eta": 5.0}, "eta must be a datetime, not 5.0; seconds from now are a delay"),
        ({"delay": 1, "eta": datetime(2030, 1, 1, tzinfo=UTC)}, "give a delay or an eta, not both"),
        ({"expires": 0}, "expires must be a positive number of seconds, not 0"),
        ({"expires": math.inf}, "expires must be a positive"),
        ({"expires": timedelta.max}, "expires must be a positive"),
        ({"expires": 10**400}, "expires must be a positive"),
        ({"expires": timedelta(seconds=-1)}, "expires must be a positive"),
        ({"expires": "soon"}, "expires must be a positive number of seconds, not 'soon'"),
        ({"priority": -1}, "priority must be a whole number from 0 to 255, higher first, not -1"),
        ({"priority": 256}, "priority must be"),
        ({"priority": 1.5}, "priority must be"),
        ({"priority": True}, "priority must be"),
        ({"timeout": 0}, "timeout must be a positive number of seconds, not 0"),
        ({"timeout": math.nan}, "timeout must be a positive number of seconds, not nan"),
        ({"timeout": -1}, "timeout must be a positive number of seconds, not -1"),
        ({"timeout": "9"}, "timeout must be a positive number of seconds, not '9'"),
        ({"task_id": 'a "b"'}, "task id .* must be 1 to 200 printable ASCII characters"),
        ({"task_id": ""}, "task id '' must be"),
        ({"task_id": 5}, "task_id must be a text, not 5"),
        ({"headers": {"a": 1}}, "headers must be a mapping of texts to texts, and 'a': 1 is not"),
        ({"headers": [1]}, r"headers must be a mapping of texts to texts, not \[1\]"),
        ({"headers": "a"}, "headers must be a mapping of texts to texts, not 'a'"),
        ({"reply_to": 5}, "reply_to must be a text, not 5"),
        ({"ignore_result": "yes"}, "ignore_result must be True or False, not 'yes'"),
        ({"retry_policy": "twice"}, "retry_policy must be a RetryPolicy, not 'twice'"),
        ({"headers": {"a": "b" * 9000}}, "the headers exceed 8192 characters"),
        ({"unique": 5}, r"unique must be True, a key, or Unique\(key=..., window=...\), not 5"),
        ({"unique": ""}, "key must be a text, or a function that makes one of a call's arguments, not ''"),
        ({"delivery_mode": "twice"}, "delivery_mode must be 'at_least_once' or 'at_most_once', not 'twice'"),
    ],
    ids=repr,
)
def test_an_option_that_is_wrong_is_refused_in_one_line(app, double, wrong, complaint):
    with pytest.raises(UsageError, match=rf"^{complaint}.*$"):
        double.options(**wrong)
    with pytest.raises(UsageError, match=rf"^{complaint}.*$"):
        app.remote("far").options(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"priority": 256}, {"queue": 5}, {"expires": 0}, {"unique": 5}, {"delivery_mode": "twice"}, {"timeout": -1}),
        *({"process": "yes"}, {"ignore_result": 1}, {"validation_mode": "all"}, {"flavor": "curio"}),
    ],
    ids=repr,
)
def test_so_is_one_of_the_task(app, wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} must be"):
        app.task(**wrong)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"name": 5}, "task name 5 must be letters"),
        ({"name": ""}, "task name '' must be letters"),
        ({"id": 5}, "id must be a str, not 5"),
        ({"args": "abc"}, "args must be a list, not 'abc'"),
        ({"args": 5}, "args must be a list, not 5"),
        ({"kwargs": [5]}, r"kwargs must be a dict, not \[5\]"),
        ({"queue": None}, "queue must be a str, not None"),
        ({"headers": 5}, "headers must be a dict, not 5"),
        ({"eta": "soon"}, r"(eta and expires must be datetimes, not 'soon'|datetime - at `\$.eta`)"),
        ({"expires": 5}, r"Expected `datetime \| null`, got `int` - at `\$.expires`"),
        ({"priority": "high"}, "priority must be an int or None, not 'high'"),
        ({"timeout": "9"}, "timeout must be a float or None, not '9'"),
        ({"unique": 5}, "unique must be a str or None, not 5"),
        ({"retries": -1}, "retries is negative"),
        ({"delivery_mode": "twice"}, r"Invalid enum value 'twice' - at `\$.delivery_mode`"),
        ({"retry_policy": 5}, r"got `int` - at `\$.retry_policy`"),
        ({"timeout": 0}, "timeout must be a positive number of seconds, not 0"),
    ],
    ids=repr,
)
async def test_a_message_that_nobody_could_read_is_not_sent(app, double, wrong, complaint):
    by_hand = TaskMessage(**{"name": "double", "args": [1], **wrong})

    for sending in (app.publish(by_hand), app.publish_many([double.message(1), by_hand])):
        with pytest.raises(UsageError, match=rf"^(the message could not be read again: )?.*{complaint}.*$"):
            await sending
    assert await ready(app) == 0


async def test_what_is_no_message_is_not_sent(app, double):
    for wrong in (double, double.name, None):
        for sending in (app.publish(wrong), app.publish_many([double.message(1), wrong])):
            with pytest.raises(UsageError, match=r"^what is published is a TaskMessage, as task.message\(...\) makes"):
                await sending
    with pytest.raises(DelayError, match=r"^a delay is a number of seconds or a timedelta, not 'soon'$"):
        await app.publish(double.message(1), delay="soon")
    assert await ready(app) == 0


@pytest.mark.parametrize("window", [-1, math.nan, math.inf, "1", True, timedelta(seconds=-1)], ids=repr)
def test_a_window_that_is_none_is_refused(window):
    with pytest.raises(UsageError, match=r"^window must be a number of seconds or a timedelta, and not .*$"):
        Unique(window=window)


async def test_a_unique_call_is_known_by_its_arguments_or_by_what_is_made_of_them(app, double):
    def key(task, *args, **kwargs):
        return task.message(*args, **kwargs).unique

    @app.task(name="move", unique=Unique(window=timedelta(minutes=1)))
    def move(x: object, to: str = "", **more: object) -> None: ...

    assert double.message(1).unique is None
    assert move.message(1).unique_window == 60
    assert key(move, 1) == key(move, 1) != key(move, 2)
    assert key(move, 1, a=1, b=[2]) == key(move, 1, b=[2], a=1)
    assert len({key(move, x) for x in (1, "1", None, True, 1.5, (1,))}) == 6
    assert key(move, 1).startswith("move:")
    assert key(move.options(unique="here"), 1) == "move:here" == key(app.remote("move").options(unique="here"))
    assert key(move.options(unique=lambda x, **_: f"x {x}"), 1, to="b") == "move:x 1"
    assert key(move.options(unique=False), 1) is None
    with pytest.raises(UsageError, match=r"^move: the key that unique= makes of a call must be a text, not 7$"):
        key(move.options(unique=Unique(lambda x: x)), 7)
    with pytest.raises(PayloadError, match=r"a unique key has 1 to 512 characters, not 605; a digest is shorter"):
        key(move.options(unique="x" * 600), 1)
    with pytest.raises(PayloadError, match=r"args\[0\]: a set is not JSON"):
        key(move, set())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["call", "done", "fail", "retry"]), st.sampled_from("ab"))
        | st.tuples(st.just("wait"), st.integers(1, 40)),
        max_size=40,
    ),
    st.sampled_from([0, 30]),
)
def test_a_key_is_held_while_its_task_is_unfinished_or_its_window_open(steps, window):
    async def play():
        broker = MemoryBroker(lease=1e6)
        # Of each key the id that holds it, the end of its window, and whether it is finished.
        holds = {}
        async with worker(broker) as consumer:
            held = {}
            for step, what in steps:
                if step == "wait":
                    await trio.sleep(what)
                    continue
                hold = holds.get(what)
                if step == "call":
                    one = message(unique=what, unique_window=window)
                    there = await broker.publish(one)
                    if hold and (not hold[2] or trio.current_time() < hold[1]):
                        assert there == hold[0]
                    else:
                        assert there == one.id
                        holds[what] = (one.id, trio.current_time() + window, False)
                        (held[what],) = await receive(consumer, 1)
                elif hold and not hold[2]:
                    delivery = held[what]
                    outcome = {"done": Done(1), "fail": Dead(OOPS), "retry": RetryIn(0.0, delivery.message, OOPS)}[step]
                    assert await settle(consumer, [delivery], outcome) == [True]
                    if step == "retry":
                        (held[what],) = await receive(consumer, 1)
                    elif step == "done":
                        holds[what] = (*hold[:2], True)
                    else:
                        del holds[what]

    trio.run(play, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize(
    ("args", "kwargs", "complaint"),
    [
        ((1, {2}), {}, r"args\[1\]: a set is not JSON; pass plain values"),
        (([{"a": (1, 2j)}],), {}, r"args\[0\]\[0\]\.a\[1\]: a complex is not JSON"),
        ((), {"to": {"by": [object()]}}, r"kwargs\.to\.by\[0\]: a object is not JSON"),
        (({1: 2},), {}, r"args\[0\]: the key 1 is a int; JSON keys are str"),
        ((math.nan,), {}, r"args\[0\]: nan is not JSON; pass None or a str"),
        ((2**63,), {}, r"args\[0\]: the integer does not fit 64 bits; pass it as a str"),
        (("x" * 300_000,), {}, r"the message has 300\d\d\d bytes, 262144 are allowed; store the data elsewhere"),
    ],
)
async def test_an_argument_that_cannot_travel_is_named_in_one_line(app, args, kwargs, complaint):
    @app.task(name="any")
    def any_(*args: object, **kwargs: object) -> None: ...

    for call in (any_.delay, any_.send, app.remote("any").send):
        with pytest.raises(PayloadError, match=rf"^{complaint}.*$"):
            await call(*args, **kwargs)
    with pytest.raises(PayloadError, match=rf"^{complaint}.*$"):
        await app.publish_many([any_.message(1), any_.message(*args, **kwargs)])

    assert await ready(app) == 0


@pytest.mark.parametrize("way", ["delay", "send", "map", "starmap"])
@pytest.mark.parametrize("kind", ["task", "options", "remote"])
async def test_a_forgotten_await_names_the_task(app, double, way, kind):
    task = {"task": double, "options": double.options(priority=1), "remote": app.remote("double")}[kind]

    with pytest.warns(RuntimeWarning, match=rf"coroutine 'double\.{way}' was never awaited") as told:
        # Nobody keeps it, so it is gone at once.
        getattr(task, way)([])

    assert len(told) == 1
    assert inspect.iscoroutinefunction(getattr(task, way))
    assert await ready(app) == 0
