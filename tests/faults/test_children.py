"""Tasks in child processes, below workers below chicoryd."""

import os
import signal

import pytest

from chicory import RemoteTaskError
from tests.faults.load import message, send
from tests.faults.tree import until

pytestmark = pytest.mark.long

WORKERS = 2


@pytest.fixture(scope="module")
def settings():
    # More than a child has from the start, and not much more.
    return {
        "app": "tests.faults.killable:app",
        "worker": {"concurrency": 1},
        "supervisor": {"workers": WORKERS, "memory_hard": "400MiB"},
    }


async def spinning(tree):
    """The pids of a child that runs one of `spin`, and of all in its session."""
    run = (await until(tree.ledger.running, "it runs"))[0]
    return [pid for pid in tree.left() if session(pid) == run.pid]


def session(pid):
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def parent(pid):
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])


async def gone(tree, pids):
    await until(lambda: not set(pids) & set(tree.left()), "they are gone")


async def failure(app, one):
    with pytest.raises(RemoteTaskError) as caught:
        await app.result(one.id).get(timeout=30)
    return caught.value.failure


async def test_one_whose_time_is_over_is_killed_with_its_group_and_its_place_is_free(tree, app):
    spins = [message("spin", 2, timeout=4.0) for _ in range(WORKERS)]
    await send(tree, app, spins)
    await until(lambda: len(tree.ledger.running()) == WORKERS, "every place is taken")
    children = [run.pid for run in tree.ledger.running()]
    pids = [pid for pid in tree.left() if session(pid) in children]
    works = [message("work", 0.0) for _ in range(4)]
    await send(tree, app, works)

    for one in spins:
        assert (await failure(app, one)).type == "TaskTimeout"
    assert not set(pids) & set(tree.left())
    assert not {await app.result(one.id).get(timeout=30) for one in works} & set(children)
    assert len(pids) >= 3 * WORKERS
    assert {slot["restarts"] for slot in tree.workers()} == {0}


async def test_a_worker_that_is_killed_takes_its_child_along_and_the_task_runs_again(tree, app):
    one = message("spin", 1)
    await send(tree, app, [one])
    pids = await spinning(tree)
    (worker,) = {parent(pid) for pid in pids} & set(tree.pids())

    tree.kill(worker)

    await gone(tree, pids)
    assert await app.result(one.id).get(timeout=30) is None
    assert [run.count for run in tree.ledger.runs()] == [1, 2]


async def test_what_runs_in_a_child_is_drained_by_a_reload_and_by_a_stop(tree, app):
    ones = [message("work", 1.0) for _ in range(WORKERS)]
    await send(tree, app, ones)
    await until(lambda: len(tree.ledger.running()) == WORKERS, "they run")
    before = tree.pids()
    tree.process.send_signal(signal.SIGHUP)
    await until(lambda: len(tree.pids()) == WORKERS and not set(tree.pids()) & set(before), "all are new")
    for one in ones:
        await app.result(one.id).get(timeout=30)
    await until(lambda: not set(before) & set(tree.left()), "the old ones have left")

    ones = [message("work", 1.0) for _ in range(WORKERS)]
    await send(tree, app, ones)
    await until(lambda: len(tree.ledger.running()) == WORKERS, "they run")
    assert await tree.stop() == 0
    for one in ones:
        await app.result(one.id).get(timeout=30)

    assert len(tree.ledger.runs()) == 2 * WORKERS
    assert {run.how for run in tree.ledger.runs()} == {"end"}


async def test_one_that_eats_more_memory_than_a_worker_may_have_fails_alone(tree, app):
    eater, after = message("eat", 600), message("eat", 1)
    await send(tree, app, [eater, after])

    assert (await failure(app, eater)).type == "MemoryError"
    assert await app.result(after.id).get(timeout=30) == 2**20
    assert {slot["restarts"] for slot in tree.workers()} == {0}


async def test_arguments_results_requests_and_the_log_get_through(tree, app):
    parcel = {"weight": 2.5, "day": "2024-02-29"}
    once = {"once": str(tree.home / "once")}
    ways = {how: message("weigh", parcel, how, headers=once) for how in ("", "retry", "snooze", "fail")}
    wrong = message("weigh", {"weight": "much", "day": "2024-02-29"})
    await send(tree, app, [*ways.values(), wrong])

    for how in ("", "retry", "snooze"):
        assert await app.result(ways[how].id).get(timeout=30) == {"weight": 5.0, "day": "2024-02-29"}
    info = await app.result(ways["retry"].id).info()
    assert (info.retries, info.progress.note) == (1, "on the scales")
    assert (await failure(app, ways["fail"])).message == "too heavy"
    assert (await failure(app, wrong)).type == "ValidationError"
    log = tree.log()
    for retries in (0, 1):
        (line,) = [line for line in log.splitlines() if f"weighing for {ways['retry'].id}, {retries}" in line]
        assert "scales" in line
        assert "INFO" in line
    assert f"weighed for {ways[''].id}" in log
