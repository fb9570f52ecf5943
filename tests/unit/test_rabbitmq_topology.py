"""The levels that delays pass in RabbitMQ: none early, none much too late, and every hop is declared."""

from math import isclose

from hypothesis import given
from hypothesis import strategies as st

from chicory.brokers.rabbitmq.topology import LEVELS, LONGEST, UNIT_MS, Binding, Exchange, Names, Queue, rounded, wait
from chicory.config import RabbitMQBrokerConfig
from chicory.delay import MAX_DELAY

NAMES = Names(RabbitMQBrokerConfig(), "q")


def travelled(names, waited):
    """Milliseconds that a message waits on its way through the levels, and the queue where it arrives."""
    declared = list(names.levels(waited.level))
    queues = {one.name: one.arguments for one in declared if isinstance(one, Queue)}
    exchanges = {one.name for one in declared if isinstance(one, Exchange)}
    at, waits = names.exchange(waited.level), 0
    while at in exchanges:
        words = waited.key.split(".")
        (way,) = [
            one
            for one in declared
            if isinstance(one, Binding)
            and one.source == at
            and all(wanted in ("*", word) for wanted, word in zip(one.pattern.split("."), words, strict=True))
        ]
        at = way.target
        if not way.to_exchange and at in queues:
            waits += queues[at]["x-message-ttl"]
            at = queues[at]["x-dead-letter-exchange"] or queues[at]["x-dead-letter-routing-key"]
    return waits, at


@given(st.floats(0.000_001, MAX_DELAY))
def test_a_delay_is_never_cut_short_and_hardly_stretched(seconds):
    waited = wait(seconds)

    milliseconds, queue = travelled(NAMES, waited)

    assert queue == "chicory.queue.q"
    total = milliseconds / 1000 + waited.rest
    assert total >= seconds or isclose(total, seconds)
    assert milliseconds / 1000 <= seconds * (1 + 1 / 64) + UNIT_MS / 1000
    assert waited.key.count("1") <= (7 if milliseconds < LONGEST * UNIT_MS else LEVELS)


@given(st.integers(1, LONGEST))
def test_rounding_is_up_and_small(units):
    assert units <= rounded(units) <= min(units * (1 + 1 / 64), LONGEST)
    assert rounded(rounded(units)) == rounded(units)


def test_the_time_to_live_of_every_level_is_one_that_rabbitmq_allows():
    ttls = [one.arguments["x-message-ttl"] for one in NAMES.levels(LEVELS - 1) if isinstance(one, Queue)]

    assert len(ttls) == LEVELS
    assert max(ttls) < 2**32


def test_a_queue_with_a_limit_has_a_way_back_without_one():
    names = Names(RabbitMQBrokerConfig(queue_max_length=5), "q")

    limited = {one.name: "x-max-length" in one.arguments for one in names.basics() if isinstance(one, Queue)}

    assert limited == {"chicory.queue.q": True, "chicory.back.q": False, "chicory.dlq.q": False}
    assert travelled(names, wait(10))[1] == "chicory.back.q"
