"""The wire: what goes in comes out, whatever comes in is answered, and the limits hold (X1, X2, X4)."""

import json
import math
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chicory.errors import PayloadError
from chicory.types import Failure, ResultRecord, TaskMessage, TaskState, Undecodable
from chicory.wire import (
    MAX_BODY,
    MAX_DEPTH,
    MAX_HEADERS,
    MAX_KEY,
    MAX_NODES,
    check_name,
    check_queue,
    pack,
    pack_record,
    unpack,
    unpack_record,
)
from tests.unit.messages import failures, messages, simple, texts, values


@given(messages())
def test_a_message_comes_back_as_it_was(message):
    assert same(unpack(pack(message)), message)


@given(messages())
def test_packing_is_canonical(message):
    raw = pack(message)

    assert raw.startswith(b'{"id":')
    assert pack(unpack(raw)) == raw


@given(messages())
def test_the_body_is_json_in_plain_types(message):
    body = json.loads(pack(message), parse_constant=pytest.fail)

    assert body["id"] == message.id
    assert body["name"] == message.name


@given(st.binary(max_size=300))
def test_unpack_answers_for_any_bytes(raw):
    answer = unpack(raw)

    assert isinstance(answer, TaskMessage | Undecodable)
    if isinstance(answer, Undecodable):
        assert answer.raw == raw
        assert answer.why


SPLINTERS = [b"NaN", b"1e999", b'"$bytes":', b"\x00", b"\xff", b"{", b"]", b"9" * 30, b"\\ud800", b" "]


@given(messages(), st.data())
def test_unpack_answers_for_any_damaged_body(message, data):
    raw = bytearray(pack(message))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(raw) - 1, 0)))
        what = data.draw(st.sampled_from(["change", "drop", "insert", "cut", "double"]))
        if what == "change" and raw:
            raw[at] = data.draw(st.integers(0, 255))
        elif what == "drop":
            del raw[at : at + data.draw(st.integers(1, 8))]
        elif what == "insert":
            raw[at:at] = data.draw(st.sampled_from(SPLINTERS))
        elif what == "cut":
            del raw[at:]
        else:
            raw += raw[at:]

    answer = unpack(bytes(raw))

    # What is taken for a message is one that could have been sent.
    assert isinstance(answer, Undecodable) or isinstance(pack(answer), bytes)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | st.just("$bytes"), inner, max_size=3),
    max_leaves=8,
)
FIELDS = list(TaskMessage.__struct_fields__)


@given(st.dictionaries(st.sampled_from(FIELDS), json_values), st.booleans())
def test_unpack_answers_for_fields_of_any_type(fields, named):
    if named:
        fields = {"id": "an-id", "name": "work", **fields}

    answer = unpack(json.dumps(fields).encode())

    assert isinstance(answer, Undecodable) or isinstance(pack(answer), bytes)


@given(values, st.none() | failures, st.integers(0, 100), st.sampled_from(TaskState))
def test_a_record_comes_back_as_it_was(value, failure, retries, state):
    record = ResultRecord(state, value=value, failure=failure, retries=retries, finished_at=1.5)

    assert same(unpack_record(pack_record(record)), record)


@given(st.binary(max_size=100) | json_values.map(lambda value: json.dumps(value).encode()))
def test_a_record_that_cannot_be_read_says_so(raw):
    try:
        record = unpack_record(raw)
    except PayloadError:
        return
    assert isinstance(record, ResultRecord)


@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 2, 28, 12, 30, 1, 5, tzinfo=UTC),
        datetime(2026, 2, 28),
        UUID("00000000-0000-0000-0000-00000000002a"),
        Decimal("1.10"),
        Decimal("-0E+7"),
        b"\x00\xff",
        b"",
        {"$uuid": "not a uuid"},
        {"$anything": [1]},
        {"$object": {"$object": {}}},
        {"$bytes": "AA==", "and": "more"},
    ],
)
def test_each_kind_comes_back_as_itself(value):
    (back,) = unpack(pack(simple(args=[value]))).args

    assert back == value
    assert type(back) is type(value)
    # Equality of decimals forgets their digits.
    assert str(back) == str(value)


def test_a_bytearray_comes_back_as_bytes_and_a_tuple_as_a_list():
    assert unpack(pack(simple(args=[bytearray(b"x"), (1, 2)]))).args == [b"x", [1, 2]]


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Word(StrEnum):
    YES = "yes"


def test_an_enum_travels_as_its_value():
    assert unpack(pack(simple(args=[Colour.RED, Level.HIGH, Word.YES]))).args == ["red", 3, "yes"]


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        date(2026, 1, 1),
        1j,
        len,
        Exception("x"),
        Decimal("NaN"),
        Decimal("Infinity"),
        {1: 2},
        "\ud800",
    ],
    ids=repr,
)
def test_x1_other_kinds_are_refused_with_the_place(value):
    with pytest.raises(PayloadError):
        pack(simple(kwargs={"deep": [{"er": value}]}))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 2**63, -(2**63) - 1])
def test_x1_numbers_beyond_json_and_64_bits_are_refused(value):
    with pytest.raises(PayloadError):
        pack(simple(args=[value]))
    with pytest.raises(PayloadError):
        pack_record(ResultRecord(TaskState.SUCCESS, value=value))


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 1e308, -0.0, 5e-324])
def test_x1_numbers_at_the_edge_travel(value):
    assert unpack(pack(simple(args=[value]))).args == [value]


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "9223372036854775808",
        "-9223372036854775809",
        "1" * 5000,
        '{"k":1,"k":2}',
        '{"$unknown":1}',
        '{"$datetime":"yesterday"}',
        '{"$datetime":5}',
        '{"$uuid":"x"}',
        '{"$uuid":null}',
        '{"$bytes":"*"}',
        '{"$bytes":["AA=="]}',
        '{"$decimal":"one"}',
        '{"$decimal":[1]}',
        '{"$decimal":"NaN"}',
        '{"$decimal":"Infinity"}',
        '{"$object":5}',
        "[" * 100_000,
        "[" * 100 + "]" * 100,
        '{"k":' * 100 + "1" + "}" * 100,
    ],
    ids=lambda text: text[:20],
)
def test_x1_bodies_outside_the_closed_types_are_undecodable(text):
    raw = b'{"id":"an-id","name":"work","args":[' + text.encode() + b"]}"

    answer = unpack(raw)

    assert isinstance(answer, Undecodable), answer
    assert answer.raw == raw


def test_x1_a_field_that_is_there_twice_is_undecodable():
    raw = b'{"id":"an-id","name":"work","name":"other"}'

    assert isinstance(unpack(raw), Undecodable)


def test_a_field_of_a_later_version_is_no_reason_to_refuse():
    answer = unpack(b'{"id":"an-id","name":"work","colour":"red","args":[1]}')

    assert answer == simple(args=[1])


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


def test_x2_depth_is_limited_on_both_ways():
    deepest = next(depth for depth in range(MAX_DEPTH + 2, 0, -1) if packs(simple(args=[nested(depth)])))

    assert MAX_DEPTH - 2 <= deepest <= MAX_DEPTH
    assert unpack(pack(simple(args=[nested(deepest)]))).args == [nested(deepest)]
    raw = b'{"id":"an-id","name":"work","args":[' + json.dumps(nested(MAX_DEPTH + 3)).encode() + b"]}"
    assert isinstance(unpack(raw), Undecodable)


def test_x2_the_number_of_values_is_limited_on_both_ways():
    assert packs(simple(args=[0] * (MAX_NODES - 1)))
    assert not packs(simple(args=[0] * (MAX_NODES + 1)))
    raw = b'{"id":"an-id","name":"work","args":[' + b",".join([b"0"] * (MAX_NODES + 100)) + b"]}"
    assert isinstance(unpack(raw), Undecodable)


def test_x2_the_length_of_a_key_is_limited_on_both_ways():
    assert packs(simple(kwargs={"k" * MAX_KEY: 1}))
    assert not packs(simple(args=[{"k" * (MAX_KEY + 1): 1}]))
    for key in ("k" * (MAX_KEY + 1), '"' * (MAX_KEY + 1), "é" * (MAX_KEY + 1), "k" * 100 + '"' + "k" * 200):
        for kwargs in ({key: 1}, {"fine": {key: 1}}, {"a": "x" * 300, key: 1}):
            raw = msgspec.json.encode({"id": "an-id", "name": "work", "kwargs": kwargs})
            assert isinstance(unpack(raw), Undecodable)
    long_values = ["k" * 1000, {'"' * MAX_KEY: '":' * 300}]
    assert unpack(pack(simple(args=long_values))).args == long_values


def test_x2_the_size_of_a_body_is_limited_on_both_ways():
    overhead = len(pack(simple(args=[""])))

    fits = pack(simple(args=["x" * (MAX_BODY - overhead)]))
    assert len(fits) == MAX_BODY
    assert isinstance(unpack(fits), TaskMessage)
    with pytest.raises(PayloadError, match="store the data elsewhere"):
        pack(simple(args=["x" * (MAX_BODY - overhead + 1)]))
    assert isinstance(unpack(fits[:-4] + b"x" + fits[-4:]), Undecodable)
    with pytest.raises(PayloadError):
        pack_record(ResultRecord(TaskState.SUCCESS, value="x" * MAX_BODY))


def test_x2_headers_are_limited_on_both_ways():
    assert packs(simple(headers={"k": "x" * (MAX_HEADERS - 1)}))
    with pytest.raises(PayloadError, match="headers"):
        pack(simple(headers={"k": "x" * MAX_HEADERS}))
    raw = b'{"id":"an-id","name":"work","headers":{"k":"' + b"x" * (MAX_HEADERS + 1) + b'"}}'
    assert isinstance(unpack(raw), Undecodable)


def test_a_value_that_contains_itself_is_refused():
    loop = []
    loop.append(loop)

    with pytest.raises(PayloadError):
        pack(simple(args=[loop]))


@pytest.mark.parametrize(
    "name", ["", "1work", "os.system()", "work work", "wörk", "x" * 201, "work\n", "__import__('os')"]
)
def test_x4_a_task_name_is_a_name(name):
    with pytest.raises(PayloadError):
        pack(simple(name=name))
    with pytest.raises(PayloadError):
        check_name(name)
    assert isinstance(unpack(json.dumps({"id": "an-id", "name": name}).encode()), Undecodable)


@pytest.mark.parametrize("bad", ["", 'a"b', "a\\b", "a b", "é", "a\n", "x" * 201])
def test_an_id_is_printable_and_short(bad):
    with pytest.raises(PayloadError):
        pack(simple(id=bad))
    assert isinstance(unpack(json.dumps({"id": bad, "name": "work"}).encode()), Undecodable)


@pytest.mark.parametrize("queue", ["", "a b", "a{b}", "a*", "é", "a\n", "a#1", "x" * 201])
def test_a_queue_is_fit_to_be_part_of_a_key(queue):
    with pytest.raises(PayloadError):
        check_queue(queue)
    with pytest.raises(PayloadError):
        pack(simple(queue=queue))
    assert isinstance(unpack(json.dumps({"id": "an-id", "name": "work", "queue": queue}).encode()), Undecodable)


def test_negative_retries_are_undecodable():
    assert isinstance(unpack(b'{"id":"an-id","name":"work","retries":-1}'), Undecodable)


@pytest.mark.parametrize("field", ["retries", "priority"])
def test_a_number_of_the_envelope_beyond_64_bits_is_refused(field):
    with pytest.raises(PayloadError, match="64 bits"):
        pack(TaskMessage(name="t", **{field: 2**63}))

    body = f'{{"id":"x","name":"t","{field}":{2**63}}}'
    assert isinstance(unpack(body.encode()), Undecodable)


@pytest.mark.parametrize("timeout", [0, -1.5, math.nan, math.inf])
def test_a_timeout_that_gives_no_time_is_refused(timeout):
    with pytest.raises(PayloadError, match="positive number of seconds"):
        pack(simple(timeout=timeout))
    assert isinstance(unpack(json.dumps({"id": "an-id", "name": "work", "timeout": timeout}).encode()), Undecodable)


def test_a_record_keeps_only_what_is_said():
    assert pack_record(ResultRecord(TaskState.PENDING)) == b'{"state":"pending"}'
    assert unpack_record(b'{"state":"failure","failure":{"type":"T","message":"m"}}') == ResultRecord(
        TaskState.FAILURE, failure=Failure("T", "m")
    )


def test_an_error_names_the_place():
    with pytest.raises(PayloadError, match=r"kwargs.*outer.*inner"):
        pack(simple(kwargs={"outer": {"inner": object()}}))


def packs(message):
    try:
        pack(message)
    except PayloadError:
        return False
    return True


def same(left, right):
    """Equality that knows -0.0, 1 and True apart, as JSON does."""
    return left == right and repr(left) == repr(right)
