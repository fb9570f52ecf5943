"""The daemon is told to read its settings again, with good ones and with bad ones, under load."""

import os
import signal

import pytest
import trio

from tests.faults.load import close_books, long, probe, quick, send
from tests.faults.tree import until


def reload(tree):
    return tree.run("reload")


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


async def watch_capacity(tree, lowest):
    """Note in *lowest* the smallest number of workers that were ready at once."""
    while True:
        status = await trio.to_thread.run_sync(tree.status)
        if status is not None:
            ready = [slot for slot in status["slots"] if slot["slot"].startswith("worker") and slot["state"] == "ready"]
            lowest.append(len(ready))
        await trio.sleep(0.02)


async def test_a_good_reload_changes_the_settings_and_interrupts_nothing(tree, app):
    before, open_before = set(tree.pids()), descriptors(tree.process.pid)
    lowest = []
    await send(tree, app, long(12, 1.0) + quick(300))
    tree.configure(worker={"concurrency": 4})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_capacity, tree, lowest)
        done = await trio.to_thread.run_sync(reload, tree)
        nursery.cancel_scope.cancel()

    assert done.returncode == 0, done.stderr
    assert min(lowest) >= 3
    await tree.ready()
    assert not before & set(tree.pids())
    await close_books(tree, app)
    assert len(tree.ledger.runs()) == len(tree.ledger.sent)
    await until(lambda: descriptors(tree.process.pid) <= open_before, "no descriptor is left open")
    await send(tree, app, long(20, 0.5))
    await until(lambda: len(tree.ledger.running()) == 12, "three workers run four each")
    await close_books(tree, app)


async def test_a_hundred_hups_in_a_second_make_two_reloads_and_interrupt_nothing(tree, app):
    before, open_before = tree.status()["generation"], descriptors(tree.process.pid)
    await send(tree, app, long(12, 1.0) + quick(300))

    for _ in range(100):
        tree.process.send_signal(signal.SIGHUP)
        await trio.sleep(0.01)

    # Whoever asks now is answered when all that was asked for before is done too.
    assert (await trio.to_thread.run_sync(reload, tree)).returncode == 0
    await close_books(tree, app)
    assert len(tree.ledger.runs()) == len(tree.ledger.sent)
    await tree.ready()
    await until(lambda: descriptors(tree.process.pid) <= open_before, "no descriptor is left open")
    assert tree.status()["generation"] - before <= 3


@pytest.mark.parametrize("times", [2, pytest.param(100, marks=pytest.mark.long)])
async def test_one_reload_after_another_interrupts_nothing_and_leaves_nothing(tree, app, times):
    before, open_before = tree.status()["generation"], descriptors(tree.process.pid)
    lowest, over = [], trio.Event()

    async def keep_busy():
        seed = 0
        while not over.is_set():
            seed += 1
            await send(tree, app, long(1, 0.3) + quick(10, seed=seed))
            await trio.sleep(0.2)

    async with trio.open_nursery() as watching:
        watching.start_soon(watch_capacity, tree, lowest)
        async with trio.open_nursery() as working:
            working.start_soon(keep_busy)
            for _ in range(times):
                done = await trio.to_thread.run_sync(reload, tree)
                assert done.returncode == 0, done.stderr
            over.set()
        watching.cancel_scope.cancel()

    assert min(lowest) >= 3
    assert tree.status()["generation"] == before + times
    await close_books(tree, app)
    assert len(tree.ledger.runs()) == len(tree.ledger.sent)
    await tree.ready()
    await until(lambda: descriptors(tree.process.pid) <= open_before, "no descriptor is left open")


def broken_toml(tree):
    tree.config.write_text(tree.config.read_text() + "[worker\n")


def unknown_key(tree):
    tree.configure(worker={"concurency": 3})


def other_broker(tree):
    tree.config.write_text(tree.config.read_text().replace(tree.url, "unix:///nowhere/redis.sock"))


def other_app(tree):
    tree.config.write_text(tree.config.read_text().replace("tests.faults.tasks:app", "tests.faults.tasks:nothing"))


def broken_app(tree):
    tree.broken.touch()


def workers_that_die(tree):
    tree.broken.write_text("workers")


@pytest.mark.parametrize("spoil", [broken_toml, unknown_key, other_broker, other_app, broken_app, workers_that_die])
async def test_a_bad_reload_is_refused_and_changes_nothing(tree, app, spoil):
    before = set(tree.pids())
    good = tree.config.read_text()
    await send(tree, app, long(6, 1.0) + quick(100))
    try:
        spoil(tree)
        done = await trio.to_thread.run_sync(reload, tree)
    finally:
        tree.config.write_text(good)
        tree.broken.unlink(missing_ok=True)

    assert done.returncode != 0
    assert done.stderr.strip()
    assert set(tree.pids()) == before
    await probe(tree, app, 2.0)
    await close_books(tree, app)
    assert len(tree.ledger.runs()) == len(tree.ledger.sent)


async def test_whoever_starts_again_reads_the_settings_that_are_in_force_and_not_a_file_half_written(tree, app):
    good = tree.config.read_text()
    slots = {slot["slot"]: slot["pid"] for slot in tree.status()["slots"]}
    try:
        tree.config.write_text(good + "[worker\n")
        for pid in (slots["scheduler"], slots["template"], slots["worker-1"]):
            tree.kill(pid)

        def all_back():
            now = {slot["slot"]: slot["pid"] for slot in tree.status()["slots"] if slot["state"] == "ready"}
            return now.keys() == slots.keys() and sum(now[name] != slots[name] for name in slots) == 3

        await until(all_back, "all are back")
        await probe(tree, app, 2.0)
        # In force is what was read, and a reload is what reads.
        refused = await trio.to_thread.run_sync(tree.run, "reload")
        assert refused.returncode == 1
    finally:
        tree.config.write_text(good)
    await close_books(tree, app)


async def test_the_daemon_ends_well_and_leaves_nothing(shared_tree):
    assert await shared_tree.stop() == 0
