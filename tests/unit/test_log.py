"""The log: written at once or not at all, in whole lines, and nobody but the logging process writes an entry."""

import errno
import json
import os
import re
import select
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chicoryd.layout import LAYOUTS, Entry, as_json, console
from chicoryd.log import Log
from chicoryd.sink import LIMIT

NEWLINE = b"\n"


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        try:
            os.close(end)
        except OSError:
            assert end == reader  # closed by the test


def fill(writer):
    os.set_blocking(writer, False)
    while select.select([], [writer], [], 0)[1]:
        os.write(writer, b"x" * LIMIT)
    os.set_blocking(writer, True)


def drain(reader):
    data = b""
    while select.select([reader], [], [], 0)[0]:
        data += os.read(reader, 1 << 20)
    return data.decode()


def entry(message="", **more):
    return Entry(at=0.25, level="INFO", logger="a.b", pid=7, message=message, **more)


# Standard error of several kinds.


@pytest.mark.parametrize("reopens", [True, False])
def test_lines_for_a_reader_that_is_stuck_are_dropped_and_counted(pipe, monkeypatch, reopens):
    reader, writer = pipe
    if not reopens:  # a pipe of another user's
        monkeypatch.setattr("chicoryd.sink._FLAGS", os.O_DIRECTORY)
    log = Log(fd=writer)
    fill(writer)

    log("lost")
    log("lost too")
    drain(reader)
    log("heard")

    told, heard = drain(reader).splitlines()
    assert told.endswith("WARNING chicoryd.log: lines dropped before this one: 2 (the reader does not keep up)")
    assert heard.endswith("INFO chicoryd: heard")


def test_whoever_shares_the_pipe_may_still_wait_for_it(pipe):
    _, writer = pipe

    Log(fd=writer)("hello")

    assert os.get_blocking(writer)


def test_a_burst_is_not_lost_on_a_reader_that_is_merely_slow(pipe):
    reader, writer = pipe
    log = Log(fd=writer)

    for number in range(2000):
        log(f"{number} {'x' * 300}")

    assert drain(reader).count("\n") == 2000


def test_a_reader_that_has_gone_and_a_descriptor_that_is_closed_hurt_nobody(pipe):
    reader, writer = pipe
    log = Log(fd=writer)
    os.close(reader)

    log("nobody is there")
    closed = os.dup(writer)
    os.close(closed)
    Log(fd=closed)("not even a descriptor")


def test_a_socket_whose_reader_is_stuck_is_not_waited_for():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        log = Log(fd=ours.fileno())
        theirs.settimeout(0)

        for number in range(10_000):
            log(f"number {number}")
        read = b""
        with pytest.raises(BlockingIOError):
            while True:
                read += theirs.recv(1 << 20)
        log("heard")

        told, heard = theirs.recv(1 << 20).decode().splitlines()
        assert 0 < read.count(NEWLINE) < 10_000
        assert f"dropped before this one: {10_000 - read.count(NEWLINE)} (" in told
        assert heard.endswith("chicoryd: heard")
        assert ours.getblocking()
        log._sink.close()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_line_is_one_write_of_which_no_other_process_gets_into_the_middle(layout):
    # Keeps writes apart, as no pipe does.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        log = Log(layout, fd=ours.fileno())
        exc = "".join(f"  line {number} of a traceback\n" for number in range(300))

        log.write(log.entry("tasks", "it failed", "ERROR", exc=exc))

        theirs.setblocking(False)
        writes = []
        while select.select([theirs], [], [], 0)[0]:
            writes.append(theirs.recv(1 << 20))
        assert all(len(write) <= LIMIT and write.endswith(b"\n") for write in writes)
        assert len(writes) == (1 if layout == "json" else 3)
        log._sink.close()


# Files.


@pytest.fixture
def path(tmp_path):
    return tmp_path / "logs" / "chicory.log"


@pytest.fixture
def log(path):
    path.parent.mkdir()
    log = Log(file=path)
    assert not log.problem()
    yield log
    log._sink.close()


def lines(path):
    return [line.partition("chicoryd: ")[2] for line in path.read_text().splitlines()]


def test_a_file_that_is_moved_away_is_followed_at_a_word(log, path):
    log("one")
    path.rename(path.with_suffix(".1"))
    log("two")
    log.reopen()
    log("three")

    assert lines(path.with_suffix(".1")) == ["one", "two"]
    assert lines(path) == ["three"]


@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_a_file_that_is_moved_away_or_deleted_is_missed_within_a_second(log, path, monkeypatch, how):
    now = 100.0
    monkeypatch.setattr("chicoryd.sink.time.monotonic", lambda: now)
    log("one")
    path.rename(path.with_suffix(".1")) if how == "moved" else path.unlink()
    log("two")
    assert not path.exists()

    now += 1.0
    log("three")

    assert lines(path) == ["three"]


def test_a_file_that_is_copied_and_emptied_is_written_from_its_beginning(log, path):
    log("one")
    os.truncate(path, 0)
    log("two")

    assert lines(path) == ["two"]


def test_where_no_new_file_can_be_made_the_one_that_was_moved_away_will_do(log, path):
    moved = path.parent.rename(path.parent.parent / "elsewhere") / path.name

    log.reopen()
    log("still there")
    path.parent.mkdir()
    log.reopen()
    log("back")

    complaint, said = moved.read_text().splitlines()
    assert complaint.endswith(
        f"log.file: cannot open {path}: No such file or directory; set it to a file that this user may write"
    )
    assert said.endswith("still there")
    assert lines(path) == ["back"]


def test_lines_for_a_file_that_cannot_be_had_are_counted(path):
    log = Log(file=path)
    log("lost")
    path.parent.mkdir()
    log.reopen()
    log("back")

    told, back = path.read_text().splitlines()
    assert told.endswith("lines dropped before this one: 1 (No such file or directory)")
    assert back.endswith("back")
    log._sink.close()


def test_a_disk_that_is_full_costs_lines_and_nothing_else(log, path, monkeypatch):
    write, room = os.write, 0

    def full(fd, data):
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = write(fd, data[:room])
        room -= taken
        return taken

    with monkeypatch.context() as patched:
        patched.setattr("chicoryd.sink.os.write", full)
        log("none of it")
        room = 10
        log("a part of it")
        log("none of it")
    log("back")

    part, told, back = path.read_text().splitlines()
    assert len(part) == 10
    assert told.endswith("lines dropped before this one: 3 (No space left on device)")
    assert back.endswith("back")


def test_at_the_end_it_is_told_what_was_dropped(path):
    log = Log(file=path)
    log("lost")
    path.parent.mkdir()
    log.reopen()

    log.flush()

    assert path.read_text().endswith("lines dropped before this one: 1 (No such file or directory)\n")
    log._sink.close()


# What a line is made of.


texts = st.text(max_size=50) | st.sampled_from(["\n", "\x1b[2J", "\u2028", "\ud800", '"\\', "\U0001f600"]).flatmap(
    lambda text: st.integers(0, 3000).map(lambda times: text * times)
)


@given(message=texts, detail=texts, exc=texts)
def test_json_is_one_valid_line_however_long_and_strange_the_text(message, detail, exc):
    (line,) = as_json(entry(message, detail=detail, exc=exc))

    assert len(line) <= LIMIT
    assert line.count(b"\n") == 1
    facts = json.loads(line)
    assert (facts["ts"], facts["level"], facts["logger"], facts["pid"]) == (
        "1970-01-01T00:00:00.250Z",
        "INFO",
        "a.b",
        7,
    )
    for name, text in (("message", message), ("detail", detail), ("exc", exc)):
        whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        if name in facts.get("cut", ()):
            assert len(facts[name]) < len(text)
            assert whole.endswith(facts[name]) if name == "exc" else whole.startswith(facts[name])
        else:
            assert facts.get(name, "") == whole


def test_json_is_cut_no_more_than_it_must():
    (line,) = as_json(entry("x" * 5000, exc="y" * 5000 + "z"))

    facts = json.loads(line)
    assert len(line) > LIMIT - 10
    assert len(facts["message"]) > 1800
    assert facts["exc"].endswith("yz")
    assert facts["cut"] == ["message", "exc"]


def test_json_names_the_incarnation_where_there_is_one():
    (line,) = as_json(entry("hello", consumer="host:boot:sup:worker-1:1"))

    assert json.loads(line)["consumer"] == "host:boot:sup:worker-1:1"


@given(message=texts, detail=texts, exc=texts)
def test_nobody_but_the_log_begins_an_entry_on_the_console(message, detail, exc):
    chunks = console(entry(message, detail=detail, exc=exc))

    assert all(len(chunk) <= LIMIT and chunk.endswith(b"\n") for chunk in chunks)
    first, *others = b"".join(chunks).decode().split("\n")[:-1]
    assert re.fullmatch(r"19\d\d-\d\d-\d\d \d\d:\d\d:\d\d,250 INFO a\.b: .*", first)
    assert all(line.startswith("    ") for line in others)
    assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028]", "\n".join([first, *others]))


def test_control_characters_are_shown_and_not_obeyed():
    (line,) = console(entry("one\ntwo \x1b[31mred\u202e"))

    assert line.endswith(rb"INFO a.b: one\ntwo \x1b[31mred\u202e" + b"\n")


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_the_password_of_a_url_is_never_written(layout):
    chunks = layout(entry("redis://me:canary@host refused", detail="at amqp://:canary@x", exc="rediss://a:canary@b/0"))

    assert b"canary" not in b"".join(chunks)
    assert b"redis://***@host" in b"".join(chunks)
