"""The server has no room for its journal, or loses what it had acknowledged: the end of it, or what a replica lacks."""

import contextlib
import os

import attrs
import pytest
import trio

from tests.faults.load import check_counters, close_books, empty, long, probe, queued, quick, send
from tests.faults.test_state import small_disk
from tests.faults.tree import Tree, until
from tests.proxy import open_proxy
from tests.servers import running_server


@pytest.fixture
def made():
    trees = []
    yield trees
    for tree in trees:
        tree.remove()


async def judged(tree, app, unknown):
    """Close the books, where none may be lost but those that are *unknown* to the server; returns the lost."""
    await empty(tree, app)
    await until(lambda: not tree.ledger.running(), "everything has ended")
    verdict = tree.ledger.judge(queued=await queued(tree, app))
    tree.ledger.close(verdict)
    assert {task for task in verdict.lost if not unknown(task)} == set()
    assert attrs.evolve(verdict, lost=set()).clean(), verdict
    await check_counters(tree, app)
    return verdict.lost


@pytest.mark.parametrize("cut", [4096, pytest.param(65_536, marks=pytest.mark.long)])
async def test_what_a_truncated_journal_has_kept_is_run_and_the_books_close(tree, app, server, cut):
    # Whatever was said in what is cut off was never said, an end of a task too.
    fault = tree.ledger.fault("journal cut", lasting=float("inf"))
    await send(tree, app, long(12, 1.5) + quick(300))
    await until(lambda: len(tree.ledger.ended()) >= 50, "much is done")

    server.kill()
    (journal,) = (server.directory / "appendonlydir").glob("*.incr.aof")
    os.truncate(journal, journal.stat().st_size - cut)
    # Of a transaction whose end is cut off the server carries out nothing.
    kept = journal.read_bytes().rpartition(b"EXEC")[0]
    server.start()
    tree.ledger.over(fault)
    await probe(tree, app, 10.0)

    lost = await judged(tree, app, lambda task: f'"id":"{task}"'.encode() not in kept)
    # No more than there was room for in what was cut, and in one batch.
    assert len(lost) <= cut // 100 + 50
    assert "Traceback" not in tree.log()


@contextlib.contextmanager
def replicated():
    """A server and a replica of it that is in step."""
    at_once = ("--repl-diskless-sync-delay", "0")
    with (
        running_server(tcp=True, appendonly=True, options=at_once) as first,
        running_server(tcp=True, appendonly=True, options=at_once) as second,
    ):
        with second.client() as client:
            client.replicaof("127.0.0.1", first.port)
        yield first, second


def in_step(second):
    with second.client() as client:
        return client.info("replication")["master_link_status"] == "up"


@pytest.mark.parametrize("how", ["planned", pytest.param("killed", marks=pytest.mark.long)])
async def test_another_server_takes_over_and_only_what_it_did_not_have_is_lost(made, how):
    with replicated() as (first, second):
        await until(lambda: in_step(second), "the replica has everything")
        async with open_proxy(first.address) as proxy:
            tree = Tree(proxy.url)
            made.append(tree)
            await tree.start().ready()
            async with tree.client() as app:
                load = long(12, 1.0) + quick(600)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(lambda: send(tree, app, load, batch=10, pause=0.02, stubborn=True))
                    await until(lambda: len(tree.ledger.ended()) >= 50, "much is done")
                    fault = tree.ledger.fault("failover", lasting=float("inf"))
                    if how == "planned":
                        with first.client() as client:
                            client.execute_command("FAILOVER", "TO", "127.0.0.1", second.port)
                    else:
                        first.kill()
                        with second.client() as client:
                            client.replicaof("NO", "ONE")
                    with second.client() as client:
                        await until(lambda: client.info("replication")["role"] == "master", "it is the master")
                    proxy.upstream = second.address
                    # Whoever is connected to a server that is none any more is told so by it, or has lost it.
                    await probe(tree, app, 10.0)
                    tree.ledger.over(fault)

                journal = b"".join(path.read_bytes() for path in (second.directory / "appendonlydir").iterdir())
                lost = await judged(tree, app, lambda task: f'"id":"{task}"'.encode() not in journal)
                assert how == "killed" or not lost
                assert await tree.stop() == 0
                assert "Traceback" not in tree.log()


async def test_a_journal_without_room_acknowledges_nothing_that_is_not_run(made, tmp_path):
    disk = tmp_path / "disk"
    journal = ("--dir", str(disk), "--appendfsync", "everysec", "--auto-aof-rewrite-percentage", "0")
    with small_disk(disk, "size=8m"), running_server(appendonly=True, options=journal) as server:
        tree = Tree(server.url)
        made.append(tree)
        await tree.start().ready()
        async with tree.client() as app, trio.open_nursery() as nursery:
            nursery.start_soon(lambda: send(tree, app, quick(600), batch=10, pause=0.02, stubborn=True))
            await until(lambda: len(tree.ledger.ended()) >= 50, "much is done")

            full = tree.ledger.fault("no room", lasting=float("inf"))
            ballast = disk / "ballast"
            with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(4096))

            def refusing():
                with server.client() as client:
                    return client.info("persistence")["aof_last_write_status"] == "err"

            await until(refusing, "the server cannot write its journal")
            acknowledged = len(tree.ledger.acked)
            await trio.sleep(0.5)
            assert len(tree.ledger.acked) <= acknowledged + 10, "one answer may have been under way"

            ballast.unlink()
            await probe(tree, app, 10.0)
            tree.ledger.over(full)
        async with tree.client() as app:
            await close_books(tree, app)
        assert await tree.stop() == 0
        assert "Traceback" not in tree.log()
