"""A whole daemon on RabbitMQ, whose workers are killed, and whose server is hurt."""

import random

import pytest
import trio

from tests.faults.load import long, message, probe, quick, send
from tests.faults.rabbit_tree import HEARTBEAT, QUEUE, RabbitTree, close_books
from tests.faults.tree import until
from tests.proxy import open_proxy


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


async def test_what_is_cancelled_ends_in_whichever_worker_it_is_and_what_waits_never_starts(tree, app):
    running, waiting = long(24, 1000.0), long(10, 0.0)
    await send(tree, app, running)
    await until(lambda: len(tree.ledger.running()) == 24, "all slots are busy")
    await send(tree, app, waiting)

    async def listed():
        found = await app.broker.get_active_workers()
        return {one.pid for one in found} == set(tree.pids()) and sum(one.running for one in found) == 24

    await until(listed, "all workers are listed with what they run", 20.0)
    for each in (*waiting, *running):
        assert await app.cancel(each.id)

    await until(lambda: not tree.ledger.running(), "everything has ended", 10.0)

    async def nothing_left():
        return tree.held() == 0 and not (await app.broker.get_queue_sizes()).ready

    await until(nothing_left, "the queue is empty")
    assert {run.how for run in tree.ledger.runs()} == {"cut"}
    assert {run.id for run in tree.ledger.runs()} == {each.id for each in running}
    assert await app.broker.get_dlq_count() == 0


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


async def test_a_daemon_on_the_second_data_path_loses_nothing_either(rabbit_node):
    """And shares its queues with whoever is on the first one."""
    tree = RabbitTree(rabbit_node, worker={"max_deliveries": 1000})
    tree.variables["CHICORY_BROKER_RABBITMQ_DATA_PATH"] = "aio-pika"
    try:
        await tree.start().ready()
        async with tree.client() as app:
            await send(tree, app, long(8, 0.5) + quick(100))
            await until(lambda: tree.ledger.running(), "some run")
            # As aiormq introduces itself.
            theirs = rabbit_node.evaluate(
                "length([Pid || Pid <- rabbit_networking:connections(),"
                " [{_, Said}] <- [rabbit_reader:info(Pid, [client_properties])],"
                ' lists:keymember(<<"information">>, 1, Said)]).'
            )
            assert int(theirs) >= tree.settings("supervisor", "workers")
            tree.kill(tree.ledger.running()[0].pid)
            await close_books(tree, app)
        assert await tree.stop() == 0
        assert "aiormq" not in tree.log()
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


@pytest.mark.long
async def test_a_server_that_is_killed_ten_times_loses_nothing_and_everybody_works_on(tree, app):
    load = quick(2000)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: send(tree, app, load, batch=10, pause=0.02, stubborn=True))
        for _ in range(10):
            await trio.sleep(0.3)
            killed = tree.ledger.fault("server killed", lasting=float("inf"))
            await trio.to_thread.run_sync(tree.node.restart)
            await probe(tree, app, 5.0)
            tree.ledger.over(killed)

    await close_books(tree, app, overlapping=True)
    await until(lambda: tree.consumers() == 3, "all workers consume", 5.0)


@pytest.mark.long
async def test_a_server_that_stands_still_for_longer_than_the_lease_loses_nothing(tree, app):
    """The workers take it for gone, and cancel what they run; it takes them for gone when it goes on."""
    load = long(24, 2.0) + quick(300)
    await send(tree, app, load)
    await until(lambda: tree.ledger.running(), "tasks run")

    stopped = tree.ledger.fault("SIGSTOP", lasting=float("inf"))
    tree.node.pause()
    try:
        await until(
            lambda: "has lost its lease" in tree.log() or "cannot be renewed" in tree.log(), "it is noticed", 20
        )
        await trio.sleep(3 * HEARTBEAT)
    finally:
        tree.node.resume()
    await probe(tree, app, 10.0)
    tree.ledger.over(stopped)

    await close_books(tree, app, overlapping=True)


@pytest.mark.long
@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_network_that_loses_one_way_loses_no_message(rabbit_node, way):
    async with open_proxy(rabbit_node.address, resp=False) as proxy:
        tree = RabbitTree(
            rabbit_node,
            url=lambda vhost: f"amqp://guest:guest@127.0.0.1:{proxy.address[1]}/{vhost}",
            worker={"max_deliveries": 1000},
        )
        try:
            await tree.start().ready()
            async with tree.client() as app:
                load = quick(300) + long(12, 1.0)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(lambda: send(tree, app, load, batch=10, pause=0.02, stubborn=True))
                    await trio.sleep(0.3)
                    lost = tree.ledger.fault(f"nothing goes {way}", lasting=float("inf"))
                    proxy.blackhole(up=way == "up", down=way == "down")
                    # Both sides notice by the missing heartbeats.
                    await trio.sleep(4 * HEARTBEAT)
                    proxy.heal()
                    await probe(tree, app, 10.0)
                    tree.ledger.over(lost)
                await close_books(tree, app, overlapping=True)
            assert await tree.stop() == 0
        finally:
            tree.remove()


async def test_a_policy_that_limits_the_queue_refuses_and_loses_nothing(tree, app):
    policy = '[{<<"max-length">>, 5}, {<<"overflow">>, <<"reject-publish">>}]'
    where = f'<<"{tree.vhost}">>, <<"limit">>'
    tree.node.evaluate(
        f'rabbit_policy:set({where}, <<"^chicory.queue">>, {policy}, 0, <<"queues">>, <<"tests">>), true.'
    )
    try:
        # One at a time: of several, those before the refused one would be there twice.
        await send(tree, app, [message("work", 0.01) for _ in range(200)], batch=1, stubborn=True)
        await probe(tree, app, 5.0)
    finally:
        tree.node.evaluate(f'rabbit_policy:delete({where}, <<"tests">>), true.')

    await close_books(tree, app)


@pytest.mark.long
async def test_a_queue_that_is_deleted_under_load_takes_only_what_waited_in_it(tree, app):
    for _ in range(5):
        await send(tree, app, long(24, 0.3))
        await until(lambda: len(tree.ledger.running()) == 24, "all run")

        tree.node.delete_queue(tree.vhost, QUEUE)

        await probe(tree, app, 5.0)
    await until(lambda: tree.consumers() == 3, "all workers consume", 5.0)
    await close_books(tree, app)


async def test_the_daemon_ends_well_and_leaves_nothing(shared_tree):
    assert await shared_tree.stop() == 0
    assert "Traceback" not in shared_tree.log()
