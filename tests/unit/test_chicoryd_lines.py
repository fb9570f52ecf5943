"""The supervisor's end of a lifeline, which never waits."""

import json
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chicoryd.lifeline import Line


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with ours, theirs:
        yield Line(ours), theirs


@given(
    messages=st.lists(
        st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3), max_size=5
    ),
    cuts=st.lists(st.integers(1, 20), min_size=1),
)
def test_messages_are_heard_whole_however_they_arrive(messages, cuts):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        line = Line(ours)
        data = b"".join(json.dumps(message).encode() + b"\n" for message in messages)
        heard = []
        while data:
            size = cuts[len(data) % len(cuts)]
            theirs.sendall(data[:size])
            data = data[size:]
            heard += line.hear()

    assert heard == messages


def test_what_a_child_does_not_take_at_once_is_kept_for_it(pair):
    line, theirs = pair
    told = [{"t": "dead", "consumer": "x" * 5000, "number": number} for number in range(200)]

    for message in told:
        line.say(message)
    assert line.waiting
    data = b""
    while line.waiting:
        data += theirs.recv(1 << 20)
        line.flush()
    data += theirs.recv(1 << 20)

    assert [json.loads(text) for text in data.splitlines()] == told


@pytest.mark.parametrize("nonsense", [b"\n", b"hello\n", b"[1]\n", b"\xff\n", b"[" * 100_000 + b"\n"])
def test_nonsense_is_passed_over(pair, nonsense):
    line, theirs = pair
    theirs.sendall(nonsense + b'{"t":"ready"}\n')

    assert line.hear() == [{"t": "ready"}]
    assert not line.closed


def test_a_line_without_an_end_does_not_fill_the_memory(pair):
    line, theirs = pair
    for _ in range(3 * 16):
        while True:
            try:
                theirs.send(b"x" * 65536)
            except BlockingIOError:
                break
        line.hear()
    assert len(line._heard) <= 1 << 20

    theirs.setblocking(True)
    theirs.sendall(b'\n{"t":"ready"}\n')
    assert {"t": "ready"} in line.hear()


def test_the_other_side_hanging_up_is_noticed_after_its_last_words(pair):
    line, theirs = pair
    theirs.sendall(b'{"t":"bye"}\n')
    theirs.close()

    assert line.hear() == [{"t": "bye"}]
    assert line.closed
    line.say({"t": "stop"})
    assert not line.waiting
