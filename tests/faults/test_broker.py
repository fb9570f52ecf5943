"""The Redis server is killed, stopped, emptied and filled."""

import random
import time

import pytest
import trio

from chicory.errors import BrokerFull
from tests.faults.load import close_books, empty, long, message, probe, quick, send, send_delayed
from tests.faults.tree import until

LEASE = 3.0


async def kill_under_load(tree, app, server, times, *, before=lambda client: None):
    """Kill the server again and again while tasks are sent and run; each time a task completes soon after."""
    load = long(12, 2.0) + quick(100 * times)
    random.Random(times).shuffle(load)

    async def send_all():
        await send_delayed(tree, app, quick(20, seed=2), time.time() + 2.0)
        await send(tree, app, load, batch=20, pause=0.05, stubborn=True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_all)
        for _ in range(times):
            await trio.sleep(0.4)
            with server.client() as client:
                before(client)
            outage = tree.ledger.fault("server killed", lasting=float("inf"))
            server.restart()
            await probe(tree, app, 5.0)
            tree.ledger.over(outage)


@pytest.mark.parametrize("times", [3, pytest.param(20, marks=pytest.mark.long)])
async def test_a_server_that_writes_through_may_be_killed_at_any_time(tree, app, server, times):
    await kill_under_load(tree, app, server, times)

    await close_books(tree, app)


@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.long)])
async def test_a_server_that_writes_every_second_may_be_killed_while_the_system_lives(tree, app, server, times):
    await kill_under_load(tree, app, server, times, before=lambda client: client.config_set("appendfsync", "everysec"))

    await close_books(tree, app)


async def test_a_server_that_hangs_for_less_than_a_lease_repeats_nothing(tree, app, server):
    await send(tree, app, long(12, 1.0) + quick(100))

    server.pause()
    await trio.sleep(LEASE / 3)
    server.resume()

    await probe(tree, app, 2.0)
    await close_books(tree, app)
    assert len(tree.ledger.runs()) == len(tree.ledger.sent)


async def test_when_a_server_hangs_for_longer_than_a_lease_workers_stop_in_time(tree, app, server):
    slow = long(12, LEASE * 1.2)
    await send(tree, app, slow)
    await until(lambda: len(tree.ledger.running()) == 12, "all run")

    hanging = tree.ledger.fault("server stopped", lasting=float("inf"))
    server.pause()
    await trio.sleep(LEASE * 1.05)
    # Nothing may run on under a lease that may be over.
    assert not tree.ledger.running()
    server.resume()
    await probe(tree, app, 5.0)
    tree.ledger.over(hanging)

    await close_books(tree, app)


def forget_all(client, prefix):
    client.flushall()


def forget_stream(client, prefix):
    client.delete(f"{prefix}:stream:default")


def forget_delayed(client, prefix):
    client.delete(f"{prefix}:delayed:default")


def forget_group(client, prefix):
    client.xgroup_destroy(f"{prefix}:stream:default", "chicory-workers")


@pytest.mark.parametrize("forget", [forget_all, forget_stream, forget_delayed, forget_group])
async def test_what_somebody_deletes_is_gone_and_new_tasks_run(tree, app, server, forget):
    await send(tree, app, long(6, 0.5) + quick(20))
    await send_delayed(tree, app, quick(5), time.time() + 1.0)
    await until(lambda: len(tree.ledger.running()) >= 6, "some run")
    before = len(tree.log())

    with server.client() as client:
        forget(client, tree.prefix)

    await probe(tree, app, 2.0)
    await until(lambda: not tree.ledger.running(), "what ran has ended")
    await probe(tree, app, 2.0)
    await empty(tree, app)
    said = tree.log()[before:]
    assert "Traceback" not in said
    # Each worker says so, and once.
    assert said.count("the broker has lost its state") <= tree.settings("supervisor", "workers")
    # The counters know nothing of a deletion behind their back.
    with server.client() as client:
        client.delete(f"{tree.prefix}:counters:default")


async def test_a_worker_that_has_lost_a_lease_is_still_found_dead_at_once(tree, app, server):
    with server.client() as client:
        client.delete(f"{tree.prefix}:leases:default")
    await until(lambda: tree.log().count("has lost its lease") >= 3, "all have lost their leases")
    await tree.ready()
    await send(tree, app, long(6, 1.0))
    await until(lambda: len(tree.ledger.running()) == 6, "all run")

    fault = tree.kill(tree.ledger.running()[0].pid)
    await close_books(tree, app)

    waits = tree.ledger.reruns_after(fault.pid, fault.at)
    assert waits
    assert max(waits.values()) <= 1.0


async def test_a_full_server_refuses_new_tasks_and_finishes_the_running_ones(tree, app, server):
    await send(tree, app, long(12, 1.0))
    await until(lambda: len(tree.ledger.running()) == 12, "all run")

    with server.client() as client:
        client.set("junk", b"x" * 30_000_000)
        client.config_set("maxmemory", 20_000_000)
        refused = message("work", 0.0)
        with pytest.raises(BrokerFull):
            await app.publish(refused)
        # They end and are settled on a server that is full.
        await empty(tree, app)
        assert len(tree.ledger.ended()) == 12
        client.delete("junk")
        client.config_set("maxmemory", 0)

    await probe(tree, app, 2.0)
    await close_books(tree, app)
    assert refused.id not in {run.id for run in tree.ledger.runs()}


async def test_scripts_may_be_flushed_and_clients_paused_at_any_time(tree, app, server):
    load = quick(600)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: send(tree, app, load, batch=10, pause=0.02, stubborn=True))
        with server.client() as client:
            for turn in range(12):
                client.script_flush()
                if turn == 6:
                    client.execute_command("CLIENT", "PAUSE", 1000)
                    await trio.sleep(1.0)
                await trio.sleep(0.1)

    await close_books(tree, app)
    assert len(tree.ledger.runs()) == len(load)


async def test_the_daemon_ends_well_and_leaves_nothing(shared_tree):
    assert await shared_tree.stop() == 0
    assert "Traceback" not in shared_tree.log()
