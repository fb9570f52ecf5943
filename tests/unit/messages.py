"""Strategies for the values that travel."""

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import strategies as st
from msgspec.structs import replace

from chicory.retry import Backoff, RetryPolicy
from chicory.types import DeliveryMode, Failure, TaskMessage, Undecodable

ID_ALPHABET = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"\\')
NAME_ALPHABET = "abcXYZ019_.:-"

# JSON has no surrogates, and hypothesis would like to try them.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ids = st.text(ID_ALPHABET, min_size=1, max_size=200)
names = st.builds(str.__add__, st.sampled_from("aZ_"), st.text(NAME_ALPHABET, max_size=30))
queues = st.text(NAME_ALPHABET, min_size=1, max_size=30)
zones = st.just(UTC) | st.integers(-720, 840).map(lambda minutes: timezone(timedelta(minutes=minutes)))
# The second of two equal hours is told from the first by its offset, not by a flag that JSON has no place for.
instants = st.datetimes(datetime(1970, 1, 3), datetime(2999, 1, 1), timezones=zones | st.none()).map(
    lambda instant: instant.replace(fold=0)
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.binary(max_size=20)
    | st.uuids()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | instants
)
keys = texts | st.sampled_from(["$datetime", "$uuid", "$bytes", "$decimal", "$object", "$else", "$"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)


exception_names = st.sampled_from(["ValueError", "OSError", "asyncio.exceptions.TimeoutError", "orders.Refused"])


@st.composite
def policies(draw):
    seconds = sorted([draw(st.floats(0, 1e5)), draw(st.floats(0, 1e5))])
    return RetryPolicy(
        max_retries=draw(st.integers(0, 10)),
        retry_delay=seconds[0],
        max_delay=seconds[1],
        backoff=draw(st.sampled_from(Backoff)),
        jitter=draw(st.floats(0, 1)),
        retry_on=draw(st.none() | st.lists(exception_names, min_size=1, max_size=3)),
        ignore_on=draw(st.lists(exception_names, max_size=2)),
        time_budget=draw(st.none() | st.floats(0.001, 1e6)),
    )


@st.composite
def messages(draw):
    return TaskMessage(
        draw(ids),
        name=draw(names),
        args=draw(st.lists(values, max_size=4)),
        kwargs=draw(st.dictionaries(keys, values, max_size=4)),
        retries=draw(st.integers(0, 2**31)),
        eta=draw(st.none() | instants),
        priority=draw(st.none() | st.integers(-10, 300)),
        queue=draw(queues),
        timeout=draw(st.none() | st.floats(0, 1e9, exclude_min=True)),
        expires=draw(st.none() | instants),
        headers=draw(st.dictionaries(texts, texts, max_size=3)),
        reply_to=draw(st.none() | texts),
        delivery_mode=draw(st.none() | st.sampled_from(DeliveryMode)),
        ignore_result=draw(st.booleans()),
        unique=draw(st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)),
        unique_window=draw(st.none() | st.floats(0, 1e9)),
        retry_policy=draw(st.none() | policies()),
        first_try=draw(st.none() | st.floats(0, 4e9)),
    )


failures = st.builds(Failure, texts, texts, texts)
undecodables = st.builds(Undecodable, st.binary(max_size=20), texts)


def simple(**fields):
    """A message with nothing special about it but *fields*."""
    return replace(TaskMessage("an-id", name="work"), **fields)
