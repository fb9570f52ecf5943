"""The thread beside the event loop, on real time: it must see what virtual time would hide."""

import os
import socket
import threading

import pytest
import trio

from chicory.testing import memory_app, running_worker
from chicory.worker import watchdog as module
from chicory.worker.tasktree import task_tree
from chicory.worker.watchdog import Watchdog

PATIENCE = 30


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "TICK", 0.01)


class Told:
    """What the watchdog says, to be waited for while the loop stands still."""

    def __init__(self, monkeypatch):
        self.texts = []
        self._heard = threading.Event()
        monkeypatch.setattr(module, "_tell", self._hear)

    def _hear(self, text):
        self.texts.append(text)
        self._heard.set()

    def wait(self):
        assert self._heard.wait(PATIENCE)


@pytest.fixture
def told(monkeypatch):
    return Told(monkeypatch)


def idle():
    pass


async def test_a_task_that_holds_the_loop_is_named_once_with_its_stack(told, caplog):
    app = memory_app()

    @app.task(name="selfish")
    async def selfish() -> None:
        await trio.sleep(0)
        told.wait()

    watchdog = Watchdog(None, 30, late=0.05)
    async with running_worker(app) as worker, trio.open_nursery() as nursery:
        with watchdog.watching():
            nursery.start_soon(watchdog.pulse, idle)
            message = selfish.message()
            await app.publish(message)
            await worker.settled(1)
            with trio.fail_after(PATIENCE):
                while not caplog.messages:
                    await trio.sleep(0.001)
            nursery.cancel_scope.cancel()

    (text,) = told.texts
    assert f"it runs selfish ({message.id}), at\n" in text
    assert "told.wait()" in text
    assert "trio/_core" not in text
    assert "turns again" in caplog.messages[0]
    assert watchdog.lag() >= 0.05
    assert watchdog.lag() == 0


async def test_what_holds_the_loop_outside_of_any_task_is_told_without_one(told):
    watchdog = Watchdog(None, 30, late=0.05)
    async with trio.open_nursery() as nursery:
        with watchdog.watching():
            nursery.start_soon(watchdog.pulse, idle)
            await trio.testing.wait_all_tasks_blocked()
            told.wait()
            nursery.cancel_scope.cancel()

    assert "it runs" not in told.texts[0]
    assert "told.wait()" in told.texts[0]


async def test_a_loop_that_turns_or_has_ended_is_left_alone(told, caplog):
    turns = []
    watchdog = Watchdog(None, 30, late=5)
    with watchdog.watching():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watchdog.pulse, lambda: turns.append(True))
            with trio.fail_after(PATIENCE):
                while len(turns) < 10:
                    await trio.sleep(0.001)
            nursery.cancel_scope.cancel()
    late = Watchdog(None, 30, late=0.01)
    with late.watching():
        await trio.sleep(0.05)

    assert told.texts == []
    assert caplog.messages == []


@pytest.mark.parametrize("words", [b"", b'{"t": "quiet"}\n'])
async def test_when_chicoryd_has_gone_the_process_ends_with_its_time(told, monkeypatch, words):
    monkeypatch.setattr(module, "OVERTIME", 0.05)
    left, codes = threading.Event(), []

    def leave(code):
        codes.append(code)
        left.set()

    ours, theirs = socket.socketpair()
    with ours, theirs, Watchdog(theirs.fileno(), 0.05, leave=leave).watching():
        ours.send(words)
        assert not left.wait(0.15)
        ours.close()
        assert left.wait(PATIENCE)  # the loop stands still meanwhile

    assert codes == [70]
    assert "chicoryd has gone" in told.texts[0]


def test_the_thread_ends_with_its_block():
    before = threading.active_count()
    with Watchdog(None, 30).watching():
        assert threading.active_count() == before + 1

    assert threading.active_count() == before


async def test_a_reader_of_the_log_that_is_stuck_does_not_hold_the_thread(monkeypatch):
    stuck, over = threading.Event(), threading.Event()

    class Stuck:
        def error(self, *_):
            stuck.set()
            over.wait(PATIENCE)

    monkeypatch.setattr(module, "log", Stuck())
    monkeypatch.setattr(module, "_TELLING", 0.01)
    monkeypatch.setattr(module, "OVERTIME", 0)
    left = threading.Event()
    ours, theirs = socket.socketpair()
    with ours, theirs, Watchdog(theirs.fileno(), 0, leave=lambda _: left.set()).watching():
        ours.close()
        assert left.wait(PATIENCE)

    assert stuck.is_set()
    over.set()


async def test_the_tree_shows_where_each_task_waits():
    async def rest():
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(rest, name="resting")
        await trio.testing.wait_all_tasks_blocked()
        tree = task_tree()
        nursery.cancel_scope.cancel()

    (line,) = [line for line in tree.splitlines() if "resting" in line]
    assert line.startswith("  ")
    assert f"{os.path.basename(__file__)}:" in line
    assert line.endswith("in rest")
