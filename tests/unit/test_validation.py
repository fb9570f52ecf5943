"""Values travel and arrive as what their type hints say, and nothing else travels."""

import logging
import os
import subprocess
import sys
from collections import Counter, deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chicory.errors import ArgumentsError, PayloadError, ResultInvalid, ValidationError
from chicory.types import TaskMessage, ValidationMode
from chicory.validation.build import codec
from chicory.validation.codec import ANY, UnsupportedHint
from chicory.validation.contract import Contract
from chicory.wire import pack, unpack
from tests.unit.messages import values as json_values
from tests.unit.shapes import VALUES, Box, Cat, Color, Dog, Item, Level, Movie, Node, Order, Point, Right

SOME_ID = UUID(int=7)
DAY = date(2026, 1, 2)


def contract_of(hint, mode=ValidationMode.STRICT):
    def work(value):
        return value

    work.__annotations__ = {"value": hint, "return": hint}
    return Contract("work", work, mode)


def over_the_wire(args, kwargs):
    message = unpack(pack(TaskMessage("an-id", name="work", args=list(args), kwargs=kwargs)))
    assert isinstance(message, TaskMessage), message
    return message.args, message.kwargs


def types_in(value):
    """The types of *value* and of all that it holds."""
    if isinstance(value, dict):
        return type(value), {key: (type(key), types_in(one)) for key, one in value.items()}
    if isinstance(value, set | frozenset):
        return type(value), frozenset(types_in(one) for one in value)
    if isinstance(value, list | tuple | deque):
        return type(value), *map(types_in, value)
    fields = getattr(value, "__dataclass_fields__", None)
    return (type(value), *(types_in(getattr(value, name)) for name in fields)) if fields else type(value)


def refused(hint, value):
    """The problems of *value* at the call; it is refused."""
    with pytest.raises(ValidationError) as caught:
        contract_of(hint).outgoing([value], {})
    return list(caught.value.problems)


@pytest.mark.parametrize(("hint", "strategy"), VALUES, ids=[str(hint) for hint, _ in VALUES])
@settings(max_examples=30)
@given(data=st.data())
def test_what_is_sent_is_what_arrives(hint, strategy, data):
    contract = contract_of(hint)
    value = data.draw(strategy)

    sent = contract.outgoing([value], {})
    (arrived,), _ = contract.incoming(*over_the_wire(*sent))

    assert arrived == value
    # True, 1 and 1.0 are equal, and not the same.
    assert types_in(arrived) == types_in(value)


@pytest.mark.parametrize(("hint", "strategy"), VALUES, ids=[str(hint) for hint, _ in VALUES])
@settings(max_examples=30)
@given(data=st.data())
def test_results_travel_as_arguments_do(hint, strategy, data):
    contract = contract_of(hint)
    value = data.draw(strategy)

    (raw,), _ = over_the_wire([contract.returning(value)], {})

    assert contract.returned(raw) == value


@pytest.mark.parametrize(("hint", "strategy"), VALUES, ids=[str(hint) for hint, _ in VALUES])
@settings(max_examples=30)
@given(value=json_values)
def test_whatever_arrives_is_taken_or_refused_with_its_place_and_nothing_else(hint, strategy, value):
    found = []
    try:
        contract_of(hint).incoming([value], {})
    except ValidationError as error:
        found = error.problems

    assert all(path.startswith("value") and why for path, why in found)


@pytest.mark.parametrize("hint", [hint for hint, _ in VALUES if hint not in (Any, dict, list)], ids=str)
@settings(max_examples=30)
@given(data=st.data())
def test_whatever_is_sent_arrives_as_an_equal_or_is_refused_at_the_call(hint, data):
    value = data.draw(st.one_of([strategy for _, strategy in VALUES]))
    contract = contract_of(hint)
    try:
        sent = over_the_wire(*contract.outgoing([value], {}))
    except (ValidationError, PayloadError):
        return

    (arrived,), _ = contract.incoming(*sent)

    assert arrived == value or (arrived == list(value) and isinstance(value, tuple))


@pytest.mark.parametrize(
    ("hint", "value", "told"),
    [
        (int, "7", "must be int, not str"),
        (int, 3.9, "must be int, not float"),
        (int, 3.0, "must be int, not float"),
        (int, True, "must be int, not bool"),
        (int, None, "must be int, not None"),
        (float, "3.9", "must be float, not str"),
        (float, True, "must be float, not bool"),
        (bool, 1, "must be bool, not int"),
        (str, 7, "must be str, not int"),
        (str, b"x", "must be str, not bytes"),
        (bytes, "x", "must be bytes, not str"),
        (None, 0, "must be None, not int"),
        (date, "2026-01-01", "must be date, not str"),
        (date, datetime(2026, 1, 1, tzinfo=UTC), "must be date, not datetime"),
        (datetime, date(2026, 1, 1), "must be datetime, not date"),
        (timedelta, 7, "must be timedelta, not int"),
        (UUID, "00000000-0000-0000-0000-000000000007", "must be UUID, not str"),
        (Decimal, 1.5, "must be Decimal, not float"),
        (Path, "/tmp", "must be Path, not str"),
        (Color, "red", "must be Color ('red', 'blue'), not str"),
        (Level, 1, "must be Level (1, 2), not int"),
        (Literal["a", 1], "b", "must be one of 'a', 1, not str"),
        (Literal["a", 1], True, "must be one of 'a', 1, not bool"),
        (Literal["a", 1], [], "must be one of 'a', 1, not list"),
        (int | None, "7", "must be int | None, not str"),
        (list[int], "abc", "must be list[int], not str"),
        (list[int], {1: 2}, "must be list[int], not dict"),
        (tuple[int, str], [1, "a"], "must be tuple[int, str], not list"),
        (tuple[int, str], (1,), "must be tuple[int, str] of 2 values, not list"),
        (dict[str, int], [("a", 1)], "must be dict[str, int], not list"),
        (Counter[str], {"a": 1}, "must be Counter[str, int], not dict"),
        (Item, {"price": 1.0, "day": DAY}, "must be Item, not dict"),
        (Cat, Dog("Rex"), "must be Cat, not Dog"),
        (Cat | Dog, "Rex", "must be Cat | Dog, not str"),
        (Movie, Point(1), "must be Movie, not Point"),
        (Box, {"width": 1}, "must be Box, not dict"),
    ],
    ids=str,
)
def test_a_value_of_another_type_is_refused(hint, value, told):
    assert refused(hint, value) == [("value", told)]


@pytest.mark.parametrize(
    ("hint", "value", "problems"),
    [
        (list[int], [1, "2", 3, None], [("[1]", "must be int, not str"), ("[3]", "must be int, not None")]),
        (dict[str, list[int]], {"a": [1], "b": [1, "x"]}, [("['b'][1]", "must be int, not str")]),
        (dict[str, int], {1: 1}, [(" key 1", "must be str, not int")]),
        (dict[int, int], {1: 1, "2": 2}, [(" key 2", "must be int, not str")]),
        (dict[date, int], {DAY: "x"}, [("[datetime.date(2026, 1, 2)]", "must be int, not str")]),
        (tuple[int, str], ("a", 1), [("[0]", "must be int, not str"), ("[1]", "must be str, not int")]),
        (Point, Point("a"), [(".x", "must be int, not str")]),
        (
            list[Item],
            [Item(1, DAY), Item(2, DAY), Item("3", "2026-01-01")],
            [("[2].price", "must be float, not str"), ("[2].day", "must be date, not str")],
        ),
        (Order, Order(id=SOME_ID, items=[Item(None, DAY)]), [(".items[0].price", "must be float, not None")]),
        (Node, Node("a", [Node("b", [Node(3, [])])]), [(".children[0].children[0].name", "must be str, not int")]),
        (Cat | Dog, Dog(3), [(".name", "must be str, not int")]),
        (Movie, {"title": "M"}, [(".made", "is missing")]),
        (Movie, {"title": 1, "made": DAY}, [(".title", "must be str, not int")]),
        (Movie, {"title": "M", "made": DAY, "rated": 1}, [(".rated", "is unknown: there is no such field")]),
        (Box, Box("wide"), [(".width", "was refused: Expected `int`, got `str`")]),
        (list[Box], [Box(1), Box(1, "soon")], [("[1].due", "was refused: Invalid RFC3339 encoded date")]),
    ],
    ids=str,
)
def test_a_mistake_within_a_value_is_told_with_its_path(hint, value, problems):
    found = refused(hint, value)

    assert found == [(f"value{path}", why) for path, why in problems]


def test_what_is_sent_to_a_subclass_or_beside_it_is_not_cut_down():
    @dataclass
    class Kitten(Cat):
        weeks: int = 3

    assert refused(Cat, Kitten("Tom")) == [("value", "must be Cat, not Kitten")]


def test_a_value_that_counts_as_a_plain_one_travels_as_it():
    assert contract_of(int).outgoing([Level.HIGH], {}) == ([2], {})
    assert contract_of(float).incoming([3], {}) == ([3.0], {})
    assert type(contract_of(float).incoming([3], {})[0][0]) is float


def test_members_of_a_union_that_look_alike_travel_under_their_names():
    assert contract_of(Cat | Dog).outgoing([Dog("Rex")], {}) == ([{"Dog": {"name": "Rex"}}], {})
    assert contract_of(date | str).outgoing([DAY], {}) == ([{"date": "2026-01-02"}], {})
    assert contract_of(date | str).outgoing(["2026-01-02"], {}) == (["2026-01-02"], {})
    assert contract_of(Cat | None).outgoing([Cat("Tom")], {}) == ([{"name": "Tom"}], {})


@pytest.mark.parametrize("value", [1.0, True, 4, "1"])
def test_a_flag_is_made_of_its_own_number_only(value):
    with pytest.raises(ValidationError):
        contract_of(Right).incoming([value], {})


def test_every_mistake_of_a_call_is_told_and_the_first_few_are_spelled_out():
    def pay(amount: int, *rest: int, currency: str, **more: float): ...

    contract = Contract("pay", pay, ValidationMode.INPUTS)
    with pytest.raises(ArgumentsError) as caught:
        contract.outgoing(["1", 2, "3"], {"currency": 4, "fee": 1, "tip": "x"})

    assert isinstance(caught.value, ValidationError)
    assert caught.value.path == "amount"
    assert str(caught.value) == (
        "pay: amount must be int, not str; rest[1] must be int, not str; currency must be str, not int; "
        "tip must be float, not str"
    )
    with pytest.raises(ValidationError, match=r"rest\[4\] must be int, not str; and 1 more$"):
        contract.outgoing([1, *"abcdef"], {"currency": "EUR"})


def test_no_value_is_told_for_it_may_be_a_secret():
    with pytest.raises(ValidationError) as caught:
        contract_of(dict[str, int]).outgoing([{"password": "hunter2"}], {})

    assert "hunter2" not in str(caught.value)


def test_what_a_class_says_of_its_own_values_is_told_with_its_path():
    @dataclass
    class Positive:
        number: int

        def __post_init__(self):
            if self.number < 0:
                raise ValueError("it is below zero")

    @dataclass
    class Silent(Positive):
        def __post_init__(self):
            class Odd(Exception):
                def __str__(self):
                    raise RuntimeError

            raise Odd

    assert contract_of(list[Positive]).incoming([[{"number": 1}]], {}) == ([[Positive(1)]], {})
    with pytest.raises(ValidationError, match=r"value\[1\] was refused: ValueError: it is below zero$"):
        contract_of(list[Positive]).incoming([[{"number": 1}, {"number": -1}]], {})
    with pytest.raises(ValidationError, match="Odd: <its text cannot be made: RuntimeError>"):
        contract_of(Silent).incoming([{"number": 1}], {})


@pytest.mark.parametrize("errors", [(), {"name": "is too short"}, list, lambda: [{"name": "is too short"}]])
def test_an_error_that_only_has_the_name_of_a_models_is_told_as_any_other(errors):
    class ValidationFailure(ValueError):
        pass

    ValidationFailure.__name__ = "ValidationError"
    ValidationFailure.errors = staticmethod(errors) if callable(errors) else errors

    @dataclass
    class Strange:
        name: str

        def __post_init__(self):
            raise ValidationFailure("the name is too short")

    with pytest.raises(ValidationError, match=r"value was refused: ValidationError: the name is too short$"):
        contract_of(Strange).incoming([{"name": ""}], {})


class Model:
    """What pydantic's models have, as far as it matters here."""

    __pydantic_validator__ = None

    class ValidationError(ValueError):
        def errors(self):
            return [{"loc": ("lines", 0, "price"), "msg": "Input should be a valid number"}]

    def __init__(self, lines):
        self.lines = lines

    def __eq__(self, other):
        return self.lines == other.lines

    def model_dump(self, *, mode, by_alias):
        return {"lines": self.lines, "mode": mode, "aliases": by_alias}

    @classmethod
    def model_validate(cls, raw):
        if raw["lines"] == ["x"]:
            raise cls.ValidationError
        return cls(raw["lines"])


def test_a_model_that_knows_itself_is_left_to_itself():
    contract = contract_of(Model | None)

    sent = contract.outgoing([Model([1])], {})

    assert sent == ([{"lines": [1], "mode": "json", "aliases": True}], {})
    assert contract.incoming(*sent) == ([Model([1])], {})
    assert refused(Model, Model(["x"])) == [("value.lines[0].price", "was refused: Input should be a valid number")]
    assert refused(Model, {"lines": []}) == [("value", "must be Model, not dict")]


def test_pydantic_models_of_pydantic_itself_travel():
    class Line(pydantic.BaseModel):
        price: float
        due: date | None = None

    class Bill(pydantic.BaseModel):
        number: int = pydantic.Field(alias="no")
        lines: list[Line]

    contract = contract_of(list[Bill])
    bill = Bill(no=7, lines=[Line(price=1.5, due=DAY)])

    assert contract.incoming(*over_the_wire(*contract.outgoing([[bill]], {}))) == ([[bill]], {})
    with pytest.raises(ValidationError, match=r"value\[0\]\.lines\[0\]\.price was refused: Input should be a valid n"):
        contract.incoming([[{"no": 7, "lines": [{"price": "x"}]}]], {})


def test_structs_with_rules_of_their_own_travel():
    class Pair(msgspec.Struct, array_like=True):
        left: int
        right: bytes

    contract = contract_of(dict[str, Pair])
    sent = contract.outgoing([{"a": Pair(1, b"x")}], {})

    assert contract.incoming(*over_the_wire(*sent)) == ([{"a": Pair(1, b"x")}], {})


@pytest.mark.parametrize("hint", [object(), type(sys), Path.exists, set[type(sys)], "int | "], ids=str)
def test_a_hint_that_says_nothing_of_values_is_not_supported(hint):
    with pytest.raises(UnsupportedHint):
        codec(hint)


def test_a_parameter_whose_hint_cannot_be_read_is_passed_on_with_one_warning(caplog):
    namespace = {}
    exec(
        "from __future__ import annotations\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n"
        "    from decimal import Decimal as Money\n"
        "from datetime import date\n"
        "def pay(amount: Money, day: date, later: Later) -> Money: ...\n",
        namespace,
    )
    contract = Contract("pay", namespace["pay"], ValidationMode.STRICT)
    # Defined after the task, as a class further down in the module is.
    namespace["Later"] = Cat

    with caplog.at_level(logging.WARNING, "chicory"):
        for _ in range(3):
            sent = contract.outgoing(["any", DAY, Cat("Tom")], {})
            assert contract.returning("any") == "any"

    assert sent == (["any", "2026-01-02", {"name": "Tom"}], {})
    assert [record.message for record in caplog.records] == [
        "pay: the argument 'amount' is not validated: name 'Money' is not defined",
        "pay: the result is not validated: name 'Money' is not defined",
    ]
    with pytest.raises(ValidationError, match="day must be date"):
        contract.outgoing(["any", "2026-01-02", Cat("Tom")], {})


def test_a_class_whose_fields_cannot_be_read_takes_no_other_parameter_along(caplog):
    @dataclass
    class Odd:
        where: "Nowhere"  # noqa: F821

    def work(odd: Odd, number: int): ...

    contract = Contract("work", work, ValidationMode.INPUTS)

    assert contract.outgoing([1, 2], {}) == ([1, 2], {})
    assert "the argument 'odd' is not validated: name 'Nowhere' is not defined" in caplog.text
    assert refused(int, "x")


def test_a_task_without_hints_has_nothing_to_hold_to():
    def work(a, *rest, b=1, **more):
        return a

    contract = Contract("work", work, ValidationMode.STRICT)

    assert not contract.holds_inputs
    assert not contract.holds_outputs
    assert codec(Any) is ANY
    assert codec(int | Any) is ANY


@pytest.mark.parametrize(
    ("mode", "inputs", "outputs"), [("none", 0, 0), ("inputs", 1, 0), ("outputs", 0, 1), ("strict", 1, 1)]
)
def test_a_mode_says_what_is_held_to_the_hints(mode, inputs, outputs):
    contract = contract_of(int, ValidationMode(mode))

    assert (contract.holds_inputs, contract.holds_outputs) == (bool(inputs), bool(outputs))
    assert (contract.reader is not None) == bool(outputs)


def test_the_first_parameter_may_be_somebody_elses():
    def work(context: int, number: int): ...

    contract = Contract("work", work, ValidationMode.INPUTS, skip=1)

    assert contract.outgoing([7], {}) == ([7], {})
    with pytest.raises(ValidationError, match="number must be int"):
        contract.outgoing(["7"], {})


def test_a_result_that_is_not_what_was_promised_is_told_on_both_sides():
    contract = contract_of(list[Item])

    with pytest.raises(ValidationError, match=r"work: result\[0\]\.price must be float, not str"):
        contract.returning([Item("x", DAY)])
    with pytest.raises(ResultInvalid, match=r"work: result\[0\]\.day is missing; is the worker's version"):
        contract.returned([{"price": 1.0}])


@pytest.mark.parametrize(
    ("hint", "value"),
    [("int", "1"), ("str | None", "None"), ("list[int]", "[1]"), ("dict[str, float]", "{'a': 1.0}"), ("date", "DAY")],
)
def test_cattrs_is_imported_for_classes_only(hint, value):
    code = f"""
import sys
from datetime import date
import chicory.worker.worker
from chicory.validation.contract import Contract
from chicory.types import ValidationMode
DAY = date(2026, 1, 2)
def work(value: {hint}) -> {hint}: ...
contract = Contract("work", work, ValidationMode.STRICT)
contract.incoming(*contract.outgoing([{value}], {{}}))
assert "cattrs" not in sys.modules and "pydantic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_template_has_imported_what_its_workers_need(tmp_path):
    (tmp_path / "tasks.py").write_text(
        "from dataclasses import dataclass\n"
        "from chicory import BrokerType, Chicory\n"
        "app = Chicory(BrokerType.MEMORY, validation_mode='inputs')\n"
        "@app.task\n"
        "async def pay(order: 'Order') -> None: ...\n"
        "@dataclass\n"
        "class Order:\n"
        "    price: float\n"
    )
    code = "import sys; from chicory.worker.main import preload; assert preload() == 0 and 'cattrs' in sys.modules"
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=tmp_path, env={**os.environ, "CHICORY_APP": "tasks:app"}
    )


def test_classes_that_fail_leave_no_half_made_ones_behind():
    @dataclass
    class Inner:
        outer: "Outer | None"

    @dataclass
    class Outer:
        inner: Inner
        handle: type(sys)

    globals()["Outer"] = Outer
    try:
        with pytest.raises(UnsupportedHint, match="module"):
            codec(Outer)
        with pytest.raises(UnsupportedHint, match="module"):
            codec(Inner)
    finally:
        del globals()["Outer"]
