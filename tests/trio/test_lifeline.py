"""The child's end of the lifeline, on real socketpairs."""

import json
import os
import socket

import pytest
import trio

from chicory.lifeline import Lifeline, lifeline_from_env


@pytest.fixture
def pair():
    parent, child = socket.socketpair()
    parent.setblocking(False)
    with parent, child:
        yield parent, child


async def heard(line, count):
    messages = []
    async for message in line:
        messages.append(message)
        if len(messages) == count:
            break
    return messages


async def test_what_is_sent_arrives_as_one_json_line_each(pair):
    parent, child = pair
    line = Lifeline(child)

    assert line.send("ready")
    assert line.send("beat", lag=0.5, running=3)

    lines = parent.recv(4096).splitlines()
    assert [json.loads(text) for text in lines] == [{"t": "ready"}, {"t": "beat", "lag": 0.5, "running": 3}]


async def test_messages_are_heard_whole_however_they_arrive(pair):
    parent, child = pair
    line = Lifeline(child)
    got = []

    async with trio.open_nursery() as nursery:

        async def listen():
            got.extend(await heard(line, 2))

        nursery.start_soon(listen)
        for byte in b'{"t": "dead", "consumer": "a"}\n{"t":"stop"}\n':
            parent.send(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()

    assert got == [{"t": "dead", "consumer": "a"}, {"t": "stop"}]


async def test_lines_that_are_not_understood_are_passed_over(pair):
    parent, child = pair
    parent.send(b'not json\n[1]\n{"no": "kind"}\n{"t":"quiet"}\n')

    assert await heard(Lifeline(child), 1) == [{"t": "quiet"}]


async def test_listening_ends_when_the_parent_has_gone_even_with_words_unread(pair):
    parent, child = pair
    line = Lifeline(child)
    line.send("beat")
    parent.send(b'{"t":"quiet"}\n')
    parent.close()

    messages = [message async for message in line]

    assert messages in ([{"t": "quiet"}], [])  # a reset may take the last words with it
    assert line.send("bye") is False


async def test_a_parent_that_does_not_read_holds_nobody_up_and_gets_whole_lines(pair):
    parent, child = pair
    child.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    line = Lifeline(child)

    sent = [line.send("beat", number=n, filler="x" * 5000) for n in range(200)]
    assert False in sent
    text = b""
    while not text.endswith(b'bye"}\n'):
        try:
            text += parent.recv(65536)
        except BlockingIOError:
            line.send("bye")

    numbers = [json.loads(piece).get("number") for piece in text.splitlines()]
    assert [n for n in numbers if n is not None] == [n for n, went in enumerate(sent) if went]


async def test_without_chicoryd_it_is_silent(autojump_clock):
    async with lifeline_from_env({}) as line:
        assert not line.supervised
        assert line.name is None
        assert line.send("ready") is False
        with trio.move_on_after(1000) as scope:
            await heard(line, 1)

    assert scope.cancelled_caught


async def test_the_environment_is_cleaned_and_the_socket_not_inherited(pair):
    parent, child = pair
    number = os.dup(child.fileno())
    os.set_inheritable(number, True)
    environ = {"CHICORYD_LIFELINE": str(number), "CHICORYD_NAME": "h:b:s:worker-1:1", "OTHER": "stays"}

    async with lifeline_from_env(environ) as line:
        assert line.supervised
        assert line.name == "h:b:s:worker-1:1"
        assert not os.get_inheritable(number)
        line.send("ready")

    assert environ == {"OTHER": "stays"}
    assert parent.recv(100) == b'{"t":"ready"}\n'
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
