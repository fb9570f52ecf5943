"""What type hints promise holds from the call to the result, and a worker survives whatever breaks it."""

from dataclasses import dataclass
from datetime import date, datetime

import pytest

from chicory import Chicory, TaskContext, TaskMessage, TaskState, ValidationError, ValidationMode
from chicory.errors import ArgumentsError, PayloadError, RemoteTaskError, ResultInvalid, UsageError
from chicory.testing import memory_app, running_worker
from tests.unit.shapes import Cat, Color, Item

DAY = date(2026, 1, 2)


@pytest.fixture
def app():
    return memory_app(validation_mode=ValidationMode.STRICT)


async def ready(app):
    return (await app.broker.get_queue_sizes()).ready


async def test_arguments_arrive_and_results_come_back_as_what_they_are(autojump_clock, app, books):
    seen = []

    @app.task
    async def cheapest(items: list[Item], *, color: Color = Color.RED) -> Item | None:
        seen.append((items, color))
        return min(items, key=lambda item: item.price, default=None)

    @app.task
    def by_day(context: TaskContext, *items: Item) -> dict[date, list[Item]]:
        return {item.day: [item] for item in items}

    items = [Item(2.5, DAY, frozenset({"new"})), Item(1.5, DAY)]
    async with running_worker(app):
        best = await cheapest.delay(items, color=Color.BLUE)
        none = await cheapest.options(timeout=5).delay([])
        days = await by_day.delay(*items)
        (many,) = await app.publish_many([cheapest.message(items)])

        assert await best.get() == items[1]
        assert await none.get() is None
        assert await days.get() == {DAY: [items[1]]}
        assert await many.get() == items[1]
        assert await cheapest.result(best.id).get() == items[1]
        # Of which task an id is, the app does not know.
        assert await app.result(best.id).get() == {"price": 1.5, "day": "2026-01-02", "tags": []}

    assert seen[:2] == [(items, Color.BLUE), ([], Color.RED)]


async def test_nothing_is_queued_when_an_argument_is_not_what_its_hint_says(autojump_clock, app):
    @app.task(name="shop.pay")
    async def pay(orders: list[Item], fee: float = 0) -> None: ...

    wrong = [Item(1, DAY), Item(2, DAY), Item("three", DAY)]
    for call in (pay.delay, pay.send, pay.options(delay=5).send):
        with pytest.raises(ValidationError, match=r"^shop\.pay: orders\[2\]\.price must be float, not str$") as caught:
            await call(wrong)
    with pytest.raises(ValidationError, match="fee must be float, not str"):
        pay.message([], fee="1")
    # Whether they fit at all is asked first.
    with pytest.raises(ArgumentsError, match="missing a required argument") as unfit:
        await pay.delay(fee="1")

    assert caught.value.path == "orders[2].price"
    assert caught.value.problems == (("orders[2].price", "must be float, not str"),)
    assert not isinstance(unfit.value, ValidationError)
    assert await ready(app) == 0


async def test_a_task_may_have_another_mode_than_its_app(autojump_clock):
    app = memory_app(validation_mode="inputs")

    @app.task
    async def checked(number: int) -> int:
        return str(number)

    @app.task(validation_mode=ValidationMode.NONE)
    async def unchecked(number: int) -> int:
        return number

    @app.task(validation_mode="outputs")
    async def promising(number: int) -> int:
        return number

    async with running_worker(app):
        with pytest.raises(ValidationError):
            await checked.delay("7")
        assert await (await checked.delay(7)).get() == "7"
        assert await (await unchecked.delay("7")).get() == "7"
        assert await (await promising.delay(7)).get() == 7
        with pytest.raises(RemoteTaskError, match=r"ValidationError: .*promising: result must be int, not str"):
            await (await promising.delay("7")).get()


async def test_without_being_asked_for_nothing_is_validated(autojump_clock):
    app = memory_app()

    @app.task
    async def double(x: int) -> int:
        return 2 * x

    async with running_worker(app):
        assert await (await double.delay("7")).get() == "77"
        with pytest.raises(PayloadError, match="a Cat is not JSON"):
            await double.delay(Cat("Tom"))


def test_a_mode_that_does_not_exist_is_refused(app):
    complaint = r"^validation_mode must be 'none', 'inputs', 'outputs' or 'strict', not 'sometimes'$"
    with pytest.raises(UsageError, match=complaint):
        app.task(validation_mode="sometimes")
    with pytest.raises(UsageError, match=complaint):
        Chicory(validation_mode="sometimes")


async def test_a_message_that_does_not_validate_is_a_dead_letter_and_the_worker_goes_on(autojump_clock, app, books):
    ran = []

    @app.task(name="pay")
    async def pay(item: Item, times: int = 1) -> int:
        ran.append(item)
        return times

    good = {"price": 1.5, "day": "2026-01-02"}
    async with running_worker(app) as worker:
        # By name, as an older version or another language would send it.
        await app.publish(TaskMessage("old", name="pay", args=[{"price": "1.5", "day": "2026-01-02"}]))
        await app.publish(TaskMessage("more", name="pay", args=[{**good, "colour": "red"}]))
        await app.publish(TaskMessage("once", name="pay", args=[good, "2"], delivery_mode="at_most_once"))
        await app.publish(TaskMessage("good", name="pay", args=[good]))
        await worker.settled(4)

        with pytest.raises(RemoteTaskError, match=r"ValidationError: pay: item\.price must be float, not str"):
            await pay.result("old").get()
        assert await pay.result("good").get() == 1

    letters = {letter.task_id: letter for letter in await app.broker.get_dlq_messages()}
    assert letters["old"].error == "ValidationError: pay: item.price must be float, not str"
    assert letters["more"].error == "ValidationError: pay: item.colour is unknown: there is no such field"
    assert letters["once"].error == "ValidationError: pay: times must be int, not str"
    assert letters["old"].retry_count == 0
    assert letters["old"].original_message.args == [{"price": "1.5", "day": "2026-01-02"}]
    assert ran == [Item(1.5, DAY)]


async def test_a_result_that_does_not_validate_is_a_failure_and_is_not_tried_again(autojump_clock, app, books):
    runs = []

    @app.task
    async def lie() -> list[Item]:
        runs.append(1)
        return [Item(1, DAY), Item("two", DAY)]

    @app.task(ignore_result=True)
    async def lie_to_nobody() -> int:
        return "one"

    async with running_worker(app) as worker:
        lied = await lie.delay()
        with pytest.raises(RemoteTaskError, match=r"ValidationError: .*lie: result\[1\]\.price must be float, not str"):
            await lied.get()
        await lie_to_nobody.send()
        await worker.settled(2)

    assert runs == [1]
    assert await lied.state() is TaskState.DEAD_LETTERED
    assert await app.broker.get_dlq_count() == 1


async def test_a_result_of_another_version_is_told_from_a_failure_of_the_task(autojump_clock, app):
    @app.task(name="visit", validation_mode=ValidationMode.NONE)
    async def visit() -> int:
        return {"no": "cat"}

    newer = memory_app(validation_mode=ValidationMode.STRICT)

    @newer.task(name="visit")
    async def visit_as_of_now() -> Cat:
        return Cat("Tom")

    async with running_worker(app):
        result = await visit.delay()
        await result.wait()
    newer._ends = app._ends

    with pytest.raises(ResultInvalid, match=r"^visit: result\.name is missing; result\.no is unknown"):
        await visit_as_of_now.result(result.id).get()


async def test_a_message_that_is_tried_again_validates_again(autojump_clock, app, books):
    seen = []

    @app.task
    async def flaky(item: Item) -> date:
        seen.append(item)
        if len(seen) < 3:
            raise ConnectionError("not now")
        return item.day

    async with running_worker(app):
        result = await flaky.delay(Item(1.0, DAY))

        assert await result.get() == DAY
    assert seen == [Item(1.0, DAY)] * 3


async def test_a_class_that_misbehaves_while_it_is_made_harms_nobody(autojump_clock, app, books):
    @dataclass
    class Rude:
        how: str

        def __post_init__(self):
            if self.how == "exit":
                raise SystemExit("leaving")
            if self.how == "error":
                raise RuntimeError("no")

    @app.task(name="meet")
    async def meet(rude: Rude) -> str:
        return rude.how

    async with running_worker(app) as worker:
        for number, how in enumerate(("exit", "error", "")):
            await app.publish(TaskMessage(str(number), name="meet", args=[{"how": how}]))
        assert await meet.result("2").get() == ""
        with pytest.raises(RemoteTaskError, match="ValidationError: meet: rude was refused: RuntimeError: no"):
            await meet.result("1").get()
        with pytest.raises(RemoteTaskError, match="SystemExit: leaving"):
            await meet.result("0").get()
        assert worker.running == 0


async def test_plain_values_travel_as_they_did(autojump_clock):
    app = memory_app(validation_mode="inputs")

    @app.task(name="note")
    async def note(number: int, word: str, when: datetime | None = None, *rest: float, **more: bool) -> None: ...

    @app.task(name="note.unchecked", validation_mode="none")
    async def unchecked(number: int, word: str, when: datetime | None = None, *rest: float, **more: bool) -> None: ...

    args, kwargs = (1, "a", datetime(2026, 1, 2), 1.5), {"loud": True}
    one, other = note.message(*args, **kwargs), unchecked.message(*args, **kwargs)

    assert (one.args, one.kwargs) == (other.args, other.kwargs)
