"""The daemon itself is killed, stopped and doubled."""

import os
import random
import signal
import subprocess
import time

import pytest
import trio

from tests.faults.ledger import boottime
from tests.faults.load import check_counters, close_books, empty, long, message, queued, quick, send, send_delayed
from tests.faults.tree import until

LEASE = 3.0
GRACE = 10.0


def mixed(seed=1):
    load = long(20, 0.8) + quick(400)
    random.Random(seed).shuffle(load)
    return load


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.long)])
async def test_when_the_supervisor_is_killed_the_workers_finish_and_leave_and_a_new_one_takes_over(tree, app, times):
    for _ in range(times):
        tree.ledger.new_page()
        await send(tree, app, mixed())
        await until(lambda: len(tree.ledger.running()) >= 10, "some run")

        tree.process.kill()
        tree.process.wait()
        killed = boottime()
        await until(lambda: not tree.left(), "everybody has left", GRACE + 2)

        # They were not interrupted: nothing runs twice, and nobody had to wait for a lease.
        assert not [run for run in tree.ledger.runs() if run.how != "end"]
        assert boottime() - killed <= 1.0 + 2.0
        await tree.start().ready()
        await close_books(tree, app)
        assert len(tree.ledger.runs()) == len(tree.ledger.sent)


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.long)])
async def test_when_all_are_killed_at_once_a_new_daemon_runs_everything_within_a_lease(tree, app, times):
    for _ in range(times):
        tree.ledger.new_page()
        await send(tree, app, mixed())
        await send_delayed(tree, app, quick(20, seed=2), time.time() + 1.5)
        await until(lambda: len(tree.ledger.running()) >= 10, "some run")

        killed = boottime()
        tree.kill_all()
        await until(lambda: not tree.left(), "all are dead")
        # A pid file of a daemon that is dead, and whose number is somebody else's now.
        (tree.state_dir / "chicoryd.pid").write_text(f"{os.getpid()}\n")
        await tree.start().ready()
        booted = boottime()
        await close_books(tree, app)

        cut = {run.id for run in tree.ledger.runs() if not run.how}
        again = [run.start for run in tree.ledger.runs() if run.id in cut and run.start > killed]
        assert len(again) >= len(cut) > 0
        # Nobody told the new scheduler who died, so it waits for their leases; then it looks every five seconds.
        assert max(again) <= max(killed + LEASE + 5.0, booted) + 2.0


async def test_a_second_daemon_ends_with_75_and_the_first_goes_on(tree, app):
    await send(tree, app, quick(400))

    second = subprocess.run(tree.command("start"), env=tree.environ, capture_output=True, text=True, timeout=30)

    assert second.returncode == 75
    assert f"pid {tree.process.pid}" in second.stderr
    await close_books(tree, app)
    assert len(tree.ledger.runs()) == len(tree.ledger.sent)


async def test_a_stop_lets_what_runs_finish_and_leaves_the_rest_in_the_queue(tree, app):
    await send(tree, app, long(30, 1.5) + quick(100))
    await until(lambda: len(tree.ledger.running()) == 24, "all places are taken")

    begun = boottime()
    assert await tree.stop() == 0

    assert boottime() - begun <= 1.5 + 2.0
    runs = tree.ledger.runs()
    assert {run.how for run in runs} == {"end"}
    assert tree.ledger.judge(queued=await queued(tree, app)).clean()
    sizes = await app.broker.get_queue_sizes()
    assert (sizes.ready, sizes.delivered) == (len(tree.ledger.sent) - len(runs), 0)
    await check_counters(tree, app)

    await tree.start().ready()
    await close_books(tree, app)
    # Whoever was given back was not charged for it.
    assert {run.count for run in tree.ledger.runs()} == {1}


async def test_a_storm_of_signals_is_one_clean_stop(tree, app):
    storm = [signal.SIGTERM] * 20 + [signal.SIGINT] * 5 + [signal.SIGHUP] * 5
    await send(tree, app, quick(200) + long(5, 0.5))
    await until(lambda: tree.ledger.running(), "something runs")
    before = len(tree.log())
    random.Random(7).shuffle(storm)
    tree.ledger.fault("stop", lasting=GRACE)

    for number in storm:
        if tree.process.poll() is None:
            tree.process.send_signal(number)
        await trio.sleep(1 / len(storm))
    # Whoever is impatient goes on to the very end.
    while tree.process.poll() is None:
        tree.process.send_signal(signal.SIGTERM)
        await trio.sleep(0.002)

    assert await tree.gone() == 0
    assert tree.left() == []
    said = tree.log()[before:]
    assert "Traceback" not in said
    assert said.count("stopped, exit") == 1
    assert {run.count for run in tree.ledger.runs()} == {1}
    assert tree.ledger.judge(queued=await queued(tree, app)).clean()
    await check_counters(tree, app)


@pytest.mark.long
async def test_a_hundred_storms_of_signals(tree, app):
    for _ in range(100):
        await tree.stop()
        tree.ledger.new_page()
        await app.broker.purge_queue()
        await tree.start().ready()
        await test_a_storm_of_signals_is_one_clean_stop(tree, app)


async def test_what_does_not_finish_within_its_grace_is_given_back_uncharged(shared_tree, app):
    tree = shared_tree
    if tree.process is not None and tree.process.poll() is None:
        await tree.stop()
    await app.broker.purge_queue()
    tree.ledger.new_page()
    tree.configure(worker={"shutdown_timeout": 0.5})
    await tree.start().ready()
    slow, stuck = long(12, 1.8), message("dig", 1.8)
    await send(tree, app, [*slow, stuck])
    await until(lambda: len(tree.ledger.running()) == 13, "all run")

    stopping = tree.ledger.fault("stop", lasting=float("inf"))
    begun = boottime()
    await tree.stop()
    tree.ledger.over(stopping)

    # Half a second for what runs, one to clean up, and the thread goes down with its process.
    assert boottime() - begun <= 0.5 + 10.0
    assert {run.id for run in tree.ledger.runs() if run.how == "cut"} == {each.id for each in slow}
    assert {each.id for each in slow} <= await queued(tree, app)
    tree.configure()
    await tree.start().ready()
    await close_books(tree, app)
    again = {run.id: run.count for run in tree.ledger.runs()}
    assert {again[each.id] for each in slow} == {1}


async def test_the_daemon_ends_well_and_leaves_nothing(shared_tree, app):
    assert await shared_tree.stop() == 0
    assert "Traceback" not in shared_tree.log()
    await empty(shared_tree, app)
