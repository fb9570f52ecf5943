"""Stream entries become deliveries, and streams are emptied in a fair order."""

from hypothesis import given
from hypothesis import strategies as st

from chicory.brokers.redis.reading import Source, deliveries, delivery, order
from chicory.types import TaskMessage, Undecodable
from chicory.wire import pack

SOURCE = Source("s", "default", 0)


@given(st.lists(st.binary(max_size=30), max_size=9))
def test_any_entry_becomes_a_delivery(fields):
    found = delivery(SOURCE, b"1-1", fields)

    assert isinstance(found.message, TaskMessage | Undecodable)
    assert found.count >= 1


def test_the_count_and_the_cause_of_a_returned_entry_are_read():
    body = pack(TaskMessage(id="a", name="t"))
    fields = [b"data", body, b"task_id", b"a", b"deliveries", b"2", b"cause", b"killed by SIGKILL"]

    found = delivery(SOURCE, b"1-1", fields)

    assert (found.message, found.count, found.cause) == (TaskMessage(id="a", name="t"), 3, "killed by SIGKILL")


def test_an_entry_without_data_says_so():
    found = delivery(SOURCE, b"1-1", [b"other", b"x"])

    assert found.message == Undecodable(b"other x", "the stream entry has no field 'data'")


def test_a_reply_of_nothing_is_no_delivery():
    assert deliveries({b"s": SOURCE}, None) == []


@st.composite
def queues(draw):
    levels = draw(st.integers(1, 4))
    names = draw(st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=4, unique=True))
    return [[Source(f"{name}#{level}", name, level) for level in reversed(range(levels))] for name in names]


@given(queues(), st.integers(0, 1000))
def test_every_stream_is_emptied_once_in_each_fetch(sources, turn):
    ordered = order(sources, turn)

    assert sorted(ordered, key=lambda s: s.stream) == sorted(
        (source for queue in sources for source in queue), key=lambda s: s.stream
    )


@given(queues(), st.integers(0, 1000))
def test_urgent_levels_come_first_but_for_one_fetch_in_eight(sources, turn):
    levels = [source.level for source in order(sources, turn)]

    assert levels == sorted(levels, reverse=turn % 8 != 7 or len(sources[0]) == 1)


@given(queues())
def test_every_queue_is_first_in_its_turn(sources):
    firsts = {order(sources, turn)[0].queue for turn in range(8 * len(sources))}

    assert firsts == {queue[0].queue for queue in sources}
