"""A whole daemon on RabbitMQ, whose workers are killed, and whose server is hurt."""

import random

import pytest
import trio

from tests.faults.load import long, message, probe, quick, send
from tests.faults.rabbit_tree import QUEUE, RabbitTree, close_books
from tests.faults.tree import until
from tests.rabbit import rabbit_node

__all__ = ["rabbit_node"]


@pytest.fixture(scope="module")
def shared_tree(rabbit_node):
    # Kills from outside are no fault of a task, so no number of them makes it a dead letter.
    made = RabbitTree(rabbit_node, worker={"max_deliveries": 1000})
    yield made
    made.remove()


@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.long)])
async def test_killed_workers_lose_nothing_and_repeat_only_what_they_ran(tree, app, rounds):
    """And of at-most-once tasks they lose at most what they ran, and repeat nothing."""
    for turn in range(rounds):
        if turn:
            await tree.rest()
        dice = random.Random(turn)
        once = [message("once", round(dice.uniform(0.0, 0.4), 3)) for _ in range(100)]
        load = once + long(16, 1.0) + quick(200)
        dice.shuffle(load)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, tree, app, load)
            for _ in range(5):
                await trio.sleep(dice.uniform(0.1, 0.5))
                tree.kill(dice.choice(await until(tree.pids, "a worker is ready")))

        await close_books(tree, app, once={each.id for each in once})
        lost = {each.id for each in once} - tree.ledger.ended()
        assert len(lost) <= 5 * tree.settings("worker", "concurrency")


async def test_what_a_killed_worker_ran_runs_again_within_a_second(tree, app):
    await send(tree, app, long(6, 1.0))
    await until(lambda: len(tree.ledger.running()) == 6, "all run")

    fault = tree.kill(tree.ledger.running()[0].pid)
    await close_books(tree, app)

    waits = tree.ledger.reruns_after(fault.pid, fault.at)
    assert waits
    assert max(waits.values()) <= 1.0


async def test_a_task_that_kills_its_workers_is_a_dead_letter_and_its_neighbours_are_not(rabbit_node):
    tree = RabbitTree(rabbit_node)
    try:
        await tree.start().ready()
        async with tree.client() as app:
            poison = message("poison", "exit")
            await send(tree, app, [poison, *long(20, 0.2)])
            tree.ledger.fault("poison", lasting=60.0)
            await close_books(tree, app, dead={poison.id})
            (letter,) = await app.broker.get_dlq_messages()
            assert letter.error.startswith("WorkerLost: delivered")
        assert await tree.stop() == 0
    finally:
        tree.remove()


async def test_what_a_stopping_daemon_gives_back_costs_nothing(rabbit_node):
    tree = RabbitTree(rabbit_node, worker={"shutdown_timeout": 0.2, "cancel_grace": 0.5})
    try:
        await tree.start().ready()
        async with tree.client() as app:
            sent = long(40, 30.0)
            await send(tree, app, sent)
            for _ in range(3):
                await until(lambda: len(tree.ledger.running()) == 24, "all slots are busy")
                assert await tree.stop() == 0
                assert (await app.broker.get_queue_sizes()).ready == 40
                await tree.start().ready()
            await until(lambda: len(tree.ledger.running()) == 24, "all slots are busy")
        assert {run.count for run in tree.ledger.runs()} == {1}
        assert await tree.stop() == 0
    finally:
        tree.remove()


@pytest.mark.parametrize("times", [3, pytest.param(50, marks=pytest.mark.long)])
async def test_closed_connections_lose_nothing_and_everybody_works_on(tree, app, times):
    load = quick(100 * times)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: send(tree, app, load, batch=10, pause=0.02, stubborn=True))
        for _ in range(times):
            await trio.sleep(0.3)
            tree.ledger.fault("close_all_connections", lasting=2.0)
            await trio.to_thread.run_sync(tree.node.close_all_connections)
            await probe(tree, app, 5.0)

    await close_books(tree, app, overlapping=True)
    await until(lambda: tree.consumers() == 3, "all workers consume", 5.0)


@pytest.mark.parametrize("times", [1, pytest.param(10, marks=pytest.mark.long)])
async def test_a_broker_that_is_stopped_and_started_loses_nothing_and_everybody_works_on(tree, app, times):
    load = quick(200 * times)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: send(tree, app, load, batch=10, pause=0.02, stubborn=True))
        for _ in range(times):
            await trio.sleep(0.3)
            stopped = tree.ledger.fault("stop_app", lasting=float("inf"))
            await trio.to_thread.run_sync(tree.node.stop_app)
            await trio.to_thread.run_sync(tree.node.start_app)
            await probe(tree, app, 5.0)
            tree.ledger.over(stopped)

    await close_books(tree, app, overlapping=True)
    await until(lambda: tree.consumers() == 3, "all workers consume", 5.0)


def memory(node, *, alarm):
    node.set_memory_limit(0 if alarm else 0.4)


def disk(node, *, alarm):
    node.set_disk_limit(10**18 if alarm else 1)


@pytest.mark.parametrize("lacking", [memory, disk])
async def test_an_alarm_does_not_keep_workers_from_their_work(tree, app, lacking):
    load = long(60, 0.2)
    await send(tree, app, load)

    lacking(tree.node, alarm=True)
    try:
        await until(lambda: tree.ledger.ended() == {one.id for one in load}, "the queue drains", 20.0)
    finally:
        lacking(tree.node, alarm=False)

    await probe(tree, app, 5.0)
    await close_books(tree, app)


async def test_a_deleted_queue_is_declared_again(tree, app):
    await probe(tree, app, 5.0)

    tree.node.delete_queue(tree.vhost, QUEUE)

    await probe(tree, app, 5.0)
    await until(lambda: tree.consumers() == 3, "all workers consume", 5.0)
    await close_books(tree, app)


async def test_the_daemon_ends_well_and_leaves_nothing(shared_tree):
    assert await shared_tree.stop() == 0
    assert "Traceback" not in shared_tree.log()
