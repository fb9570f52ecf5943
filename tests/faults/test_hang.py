"""A worker hangs for good, or only seems to because the daemon was not there."""

import math
import os
import signal
import time

import pytest
import trio

from chicoryd.patience import LAST_WORDS
from tests.faults.ledger import boottime
from tests.faults.load import close_books, long, message, quick, send
from tests.faults.tree import PATIENCE, until

LEASE = 3.0
HANG = 3.0
# A beat and what was said before it are looked at every other second, and the last beat is as old as half a second.
SEEN = 3.0


@pytest.fixture(scope="module")
def settings():
    return {"supervisor": {"hang_timeout": HANG}}


# How long a worker may be silent, in the short form and in a daemon's own.
timeouts = pytest.mark.parametrize("hang", [HANG, pytest.param(60.0, marks=pytest.mark.long)])


async def be_patient(tree, hang):
    """Have a daemon whose hang_timeout is *hang*."""
    if tree.settings("supervisor", "hang_timeout") != hang:
        await tree.stop()
        tree.configure(supervisor={"hang_timeout": hang})
        await tree.start().ready()


async def latencies(tree, app, count):
    """Seconds from sending to starting of *count* tasks, one after another."""
    sent = {}
    for each in long(count, 0.0):
        sent[each.id] = boottime()
        await send(tree, app, [each])
        await trio.sleep(0.01)

    def started():
        return {run.id: run.start for run in reversed(tree.ledger.runs()) if run.id in sent}

    # What the server handed to the one that hangs waits there; that is no more than it has room for.
    room = tree.settings("worker", "concurrency")
    found = await until(lambda: len(known := started()) >= count - room and known, "the others go on")
    return sorted(found[task] - sent[task] if task in found else math.inf for task in sent)


@timeouts
async def test_a_worker_that_hangs_is_shown_aborted_and_its_task_run_elsewhere(tree, app, hang):
    await be_patient(tree, hang)
    restarts = {slot["slot"]: slot["restarts"] for slot in tree.workers()}
    before = await latencies(tree, app, 60)
    stalled = message("stall")
    await send(tree, app, [stalled])
    begun = (await until(tree.ledger.running, "it runs"))[0]
    hanging = tree.ledger.fault("hang", begun.pid, lasting=float("inf"))

    async def shown():
        # Which task it was, and where it stands.
        await until(lambda: stalled.id in tree.log() and "in stall" in tree.log(), "it is shown", 4.0)
        assert boottime() - begun.start <= 2.5

    async with trio.open_nursery() as nursery:
        nursery.start_soon(shown)
        during = await latencies(tree, app, 60)
        assert begun in tree.ledger.running(), "it hangs all this time"
    await close_books(tree, app, patience=hang + PATIENCE)
    tree.ledger.over(hanging)

    assert during[30] <= 2 * before[30] + 0.02
    again = [run for run in tree.ledger.runs() if run.id == stalled.id]
    assert [run.count for run in again] == [1, 2]
    # The last sign of life may be as old as a beat; an abort that shows the stack takes a moment.
    assert hang - 0.5 <= again[1].start - begun.start <= hang + SEEN
    assert sorted(slot["restarts"] - restarts[slot["slot"]] for slot in tree.workers()) == [0, 0, 1]


@timeouts
async def test_a_worker_that_is_stopped_for_good_is_killed_and_its_tasks_run_elsewhere(tree, app, hang):
    await be_patient(tree, hang)
    await send(tree, app, long(12, 1.0))
    await until(lambda: len(tree.ledger.running()) == 12, "all run")
    stopped = tree.ledger.running()[0].pid
    neighbours = {slot["pid"]: slot["restarts"] for slot in tree.workers() if slot["pid"] != stopped}

    os.kill(stopped, signal.SIGSTOP)
    halt = tree.ledger.fault("SIGSTOP", stopped, lasting=float("inf"))
    await send(tree, app, quick(200))
    # Abort does not reach it, so it is killed; the kernel ends its connection to the test then.
    killed = await until(lambda: tree.ledger.died_at(stopped), "it is killed", hang + LAST_WORDS + SEEN)
    assert killed - halt.at >= hang - 0.5 + LAST_WORDS
    await close_books(tree, app)

    waits = tree.ledger.reruns_after(stopped, halt.at)
    assert waits
    # Not before its death, and at once after it.
    assert all(killed - 0.1 <= halt.at + seconds <= killed + 1.0 for seconds in waits.values())
    left = {slot["pid"]: slot["restarts"] for slot in tree.workers() if slot["pid"] in neighbours}
    assert left == neighbours


@pytest.mark.parametrize("seconds", [HANG + 1.0, pytest.param(60.0, marks=pytest.mark.long)])
async def test_while_supervisor_and_scheduler_stand_still_the_workers_work_on_and_nobody_is_killed(tree, app, seconds):
    await be_patient(tree, HANG)
    assert seconds > max(LEASE, HANG)
    daemon = [tree.process.pid, *(slot["pid"] for slot in tree.status()["slots"] if slot["slot"] == "scheduler")]
    before = {slot["slot"]: slot["pid"] for slot in tree.status()["slots"]}
    # They end when there was time enough for a judgement that would be wrong.
    await send(tree, app, long(20, seconds + HANG + 1.0))
    await until(lambda: len(tree.ledger.running()) == 20, "all run")

    for pid in daemon:
        os.kill(pid, signal.SIGSTOP)
    over = time.monotonic() + seconds
    load = quick(200)
    await send(tree, app, load)
    await until(lambda: {each.id for each in load} <= tree.ledger.ended(), "the workers need nobody", seconds)
    await trio.sleep(over - time.monotonic())
    for pid in daemon:
        os.kill(pid, signal.SIGCONT)

    await close_books(tree, app)
    assert len(tree.ledger.runs()) == len(tree.ledger.sent)
    assert {slot["slot"]: slot["pid"] for slot in tree.status()["slots"]} == before
    assert await tree.stop() == 0
