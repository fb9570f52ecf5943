"""Workers are killed, stopped and blocked; the tasks are not harmed."""

import os
import random
import signal

import pytest
import trio

from chicory.scheduler.pacing import RECLAIM_EVERY
from tests.faults.load import close_books, long, message, quick, send
from tests.faults.tree import until

LEASE = 3.0
# So long after its last renewal a lease is over and the scheduler has looked for those that are.
BEYOND = LEASE + RECLAIM_EVERY + 0.5


@pytest.fixture(scope="module")
def settings():
    # Kills from outside are no fault of a task, so no number of them makes it a dead letter.
    return {"worker": {"max_deliveries": 1000}}


async def kill_workers(tree, kills, dice):
    """Kill a random worker, again and again; returns the faults."""
    faults = []
    for _ in range(kills):
        await trio.sleep(dice.uniform(0.1, 0.5))
        faults.append(tree.kill(dice.choice(await until(tree.pids, "a worker is ready"))))
    return faults


@pytest.mark.parametrize("seconds", [BEYOND, pytest.param(15 * LEASE, marks=pytest.mark.long)])
async def test_nobody_who_lives_is_taken_for_dead_however_long_he_is_silent(tree, app, seconds):
    """One worker is stopped, one has its interpreter held by C code, and one is only slow: all of it runs once."""
    await send(tree, app, [message("seize", int(seconds * 1e6))])
    seized = (await until(tree.ledger.running, "it has the interpreter"))[0].pid
    slow = long(15, seconds)
    await send(tree, app, slow)
    await until(lambda: len(tree.ledger.running()) >= 8, "others run on two workers, and some wait for the third")
    stopped = next(run.pid for run in tree.ledger.running() if run.pid != seized)

    os.kill(stopped, signal.SIGSTOP)
    await send(tree, app, quick(200))
    await trio.sleep(seconds)
    os.kill(stopped, signal.SIGCONT)

    await close_books(tree, app)
    assert len(tree.ledger.runs()) == len(tree.ledger.sent)
    assert {slot["restarts"] for slot in tree.workers()} == {0}


async def test_a_task_that_blocks_its_worker_for_less_than_the_lease_is_only_slow(tree, app):
    others = long(40, 0.0)
    await send(tree, app, [message("block", LEASE / 2)])
    await until(lambda: tree.ledger.running(), "it runs")

    # What the server hands to the one that is blocked waits there; that is no more than it has room for.
    await send(tree, app, others, batch=1, pause=0.01)
    room = tree.settings("worker", "concurrency")
    await until(lambda: len(tree.ledger.ended()) >= len(others) - room, "the other workers go on", LEASE / 2)
    assert tree.ledger.running()

    await close_books(tree, app)
    assert len(tree.ledger.runs()) == 1 + len(others)


@pytest.mark.parametrize("rounds", [1, pytest.param(25, marks=pytest.mark.long)])
async def test_what_killed_workers_ran_runs_again_within_a_second(tree, app, measured, rounds):
    # Each slot loses one worker a round: the second would be replaced only after a pause, and places would be rare.
    tree.configure(supervisor={"workers": 8}, worker={"max_deliveries": 1000})
    waits = []
    for turn in range(rounds):
        await tree.rest()
        dice = random.Random(turn)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: send(tree, app, long(120, 1.0), batch=1, pause=0.03))
            await until(lambda: len(tree.ledger.running()) >= 16, "many run")
            pids = tree.pids()
            dice.shuffle(pids)
            faults = []
            for pid in pids:
                faults.append(tree.kill(pid))
                await trio.sleep(dice.uniform(0.1, 0.4))
        await close_books(tree, app)
        # What was in flight at two deaths may have to wait until a worker is free to run it alone.
        found = [tree.ledger.reruns_after(fault.pid, fault.at, highest=1) for fault in faults]
        assert sum(map(bool, found)) >= 6, "most of the killed ran something"
        waits += [seconds for each in found for seconds in each.values()]

    p99 = measured(f"from one of {8 * rounds} kills until what was in flight runs again", waits)
    tree.configure(worker={"max_deliveries": 1000})
    await tree.rest()
    assert p99 <= 1.0


@pytest.mark.parametrize("rounds", [1, pytest.param(25, marks=pytest.mark.long)])
async def test_killed_workers_lose_nothing_and_repeat_only_what_they_ran(tree, app, rounds):
    """And of at-most-once tasks they lose what they ran, and repeat nothing."""
    for turn in range(rounds):
        if turn:
            await tree.rest()
        dice = random.Random(turn)
        once = [message("once", round(dice.uniform(0.0, 0.4), 3)) for _ in range(200)]
        load = once + long(16, 1.0) + quick(400)
        dice.shuffle(load)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda load=load: send(tree, app, load))
            killed = await kill_workers(tree, 8, dice)

        before = tree.forgiven
        await close_books(tree, app, once={each.id for each in once})
        assert sum(len(tree.ledger.reruns_after(fault.pid, fault.at)) for fault in killed) >= 8
        # Never more than what the killed could have been running.
        assert 0 < tree.forgiven - before <= len(killed) * tree.settings("worker", "concurrency")


async def test_the_daemon_ends_well_and_leaves_nothing(shared_tree):
    assert await shared_tree.stop() == 0
    assert "Traceback" not in shared_tree.log()
