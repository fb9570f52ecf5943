"""The wall clock of the daemon's host is moved; that of the server, which decides what is due, is right."""

import importlib.metadata
import time

import pytest
import trio

from tests.faults.ledger import boottime
from tests.faults.load import close_books, long, quick, send, send_delayed
from tests.faults.tree import until

HOUR, DAY = 3600, 86_400


class Clock:
    """What all processes of *tree* take for the time: the right one and so many seconds, which may be changed."""

    def __init__(self, tree):
        self._path = tree.home / "clock"
        (library,) = [
            each.locate() for each in importlib.metadata.files("libfaketime") if each.name == "libfaketime.so.1"
        ]
        self.move(0)
        tree.variables |= {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            # A change of the wall clock moves no other clock.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAULTS_EPOCH": str(time.time() - boottime()),
        }

    def move(self, seconds):
        whole = self._path.with_suffix(".new")
        whole.write_text(f"{seconds:+d}")
        whole.rename(self._path)


@pytest.fixture
def clock(shared_tree):
    pytest.importorskip("libfaketime", reason="clocks cannot be moved without libfaketime")
    made = Clock(shared_tree)
    yield made
    shared_tree.variables.clear()


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.long)])
async def test_a_wall_clock_that_jumps_makes_nothing_early_late_or_run_twice(clock, tree, app, rounds):
    seen = await _told(tree, clock)
    assert seen[0] + HOUR / 2 < seen[1], "the daemon sees its clock jump"
    for turn in range(rounds):
        due = time.time() + 1.5
        delayed = quick(30, seed=turn)
        await send_delayed(tree, app, delayed, due)
        await send(tree, app, long(12, 1.5) + quick(100, seed=turn))
        await until(lambda: len(tree.ledger.running()) >= 12, "some run")

        for seconds in (HOUR, -HOUR, DAY, -DAY):
            clock.move(seconds)
            await trio.sleep(0.5)
        clock.move(0)

        await close_books(tree, app)
        runs = tree.ledger.runs()
        assert len(runs) == len(tree.ledger.sent)
        ids = {each.id for each in delayed}
        late = [run.unix - due for run in runs if run.id in ids]
        assert max(late) <= 2.0
        assert {slot["restarts"] for slot in tree.workers()} == {0}
        tree.ledger.new_page()


async def _told(tree, clock):
    """What time it is, as the daemon's log says it, before a jump by an hour and after it."""
    times = []
    for seconds in (0, HOUR):
        clock.move(seconds)
        before = len(tree.log())
        assert tree.run("dump").returncode == 0
        line = await until(lambda before=before: tree.log()[before:].partition("\n")[0], "it writes a line")
        times.append(time.mktime(time.strptime(line[:19].replace("T", " "), "%Y-%m-%d %H:%M:%S")))
    clock.move(0)
    return times


async def test_the_daemon_ends_well_and_leaves_nothing(shared_tree):
    assert await shared_tree.stop() == 0
    assert "Traceback" not in shared_tree.log()
