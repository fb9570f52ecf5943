"""A database that is away, hangs or comes back: what is asked then fails in time, and nothing is left behind."""

import sqlite3
from contextlib import contextmanager

import pytest
import trio

from chicory.backends.sql import line
from chicory.errors import BrokerRefused, BrokerUnavailable
from chicory.ids import new_id
from chicory.types import TaskState
from tests.databases import PASSWORD
from tests.sql.test_tables import stored


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(line, "PATIENCE", 0.3)
    monkeypatch.setattr(line, "GRACE", 0.1)


def connections(database, prefix=""):
    """How many the server has, but for the one that asks."""
    with database.client() as client:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'chicory' AND query LIKE %s"
        ((count,),) = client.execute(query, [f"{prefix}%"]).fetchall()
    return count


async def until(fact):
    with trio.fail_after(20):
        while not fact():
            await trio.sleep(0.01)


async def listening(database, backend, count):
    """Wait until *count* callers wait for what the database says."""
    await until(lambda: len(backend._ends.current().watch._seats) == count and connections(database, "LISTEN"))


async def test_a_restart_is_not_noticed_by_who_comes_after_it(make, fragile):
    backend, task_id = make(fragile.url), new_id()
    await backend.store([stored(task_id, value=1)])

    fragile.restart()

    assert (await backend.fetch(task_id)).value == 1
    await backend.store([stored(new_id())])


async def test_a_database_that_is_away_is_unavailable_without_its_password(make, fragile):
    backend = make(fragile.url)
    fragile.kill()

    with pytest.raises(BrokerUnavailable) as refused:
        await backend.store([stored(new_id())])
    fragile.start()
    await backend.store([stored(new_id())])

    assert str(refused.value).startswith(f"postgresql://127.0.0.1:{fragile.port}/postgres: ")
    assert "\n" not in str(refused.value)
    assert PASSWORD not in repr(refused.value) + repr(refused.value.__cause__)


async def test_a_wrong_password_is_a_refusal_that_does_not_show_it(make, fragile):
    backend = make(fragile.url.replace(PASSWORD, "wrong-canary"))

    with pytest.raises(BrokerRefused, match="password authentication failed") as refused:
        await backend.fetch("x")

    assert "canary" not in str(refused.value) + repr(refused.value.__cause__)


async def test_who_waits_outlasts_a_crash(make, fragile):
    waiting, storing = make(fragile.url), make(fragile.url)
    ids = [new_id() for _ in range(3)]
    await waiting.expect(ids)
    got = []

    async def wait(task_id):
        got.append(await waiting.wait(task_id))

    async with trio.open_nursery() as nursery:
        for task_id in ids:
            nursery.start_soon(wait, task_id)
        await listening(fragile, waiting, len(ids))
        fragile.restart()
        with trio.fail_after(20):
            await storing.store([stored(task_id, value="here") for task_id in ids])
            while len(got) < 3:
                await trio.sleep(0.01)

    assert [record.value for record in got] == ["here"] * 3


async def test_a_result_is_pushed_from_one_connection_to_another(make, fragile, monkeypatch):
    monkeypatch.setattr("chicory.backends.sql.watch.SWEEP", 1000)
    waiting, storing = make(fragile.url), make(fragile.url)
    ids = [new_id() for _ in range(300)]
    await waiting.expect(ids)
    got = []

    async def wait(task_id):
        got.append(await waiting.wait(task_id))

    async with trio.open_nursery() as nursery:
        for task_id in ids:
            nursery.start_soon(wait, task_id)
        await listening(fragile, waiting, len(ids))
        with trio.fail_after(20):
            await storing.store([stored(task_id) for task_id in ids])
            while len(got) < len(ids):
                await trio.sleep(0.01)

    assert {record.state for record in got} == {TaskState.SUCCESS}


@pytest.fixture
def locked(fragile):
    """Makes the table of a backend answer nobody for as long as the block lasts."""

    @contextmanager
    def lock(backend):
        with fragile.client() as client, client.transaction():
            client.execute(f'LOCK TABLE "{backend.config.table_prefix}_results_v1" IN ACCESS EXCLUSIVE MODE')
            yield

    return lock


async def test_a_database_that_does_not_answer_is_given_up_in_time(make, fragile, impatient, locked):
    backend = make(fragile.url, pool_size=1)
    await backend.store([stored(new_id())])
    task_id = new_id()

    with locked(backend), trio.fail_after(5), pytest.raises(BrokerUnavailable):
        await backend.store([stored(task_id)])

    # The one connection there may be was not lost with it.
    with trio.fail_after(5):
        await backend.store([stored(task_id, value=2)])
    assert (await backend.fetch(task_id)).value == 2


async def test_who_is_cancelled_is_free_in_time_though_the_database_does_not_answer(make, fragile, impatient, locked):
    backend = make(fragile.url, pool_size=1)
    await backend.store([stored(new_id())])

    with locked(backend), trio.fail_after(5):
        with trio.move_on_after(0.05) as scope:
            await backend.fetch(new_id())
        assert scope.cancelled_caught

    with trio.fail_after(5):
        assert (await backend.fetch(new_id())).state is TaskState.UNKNOWN


async def test_cancelling_at_any_instant_leaks_no_connection(make, fragile):
    backend = make(fragile.url, pool_size=3)
    await backend.store([stored(new_id())])
    pending = new_id()
    await backend.expect([pending])

    for step in range(60):
        async with trio.open_nursery() as nursery:
            for call in (backend.fetch, backend.wait, lambda task_id: backend.store([stored(task_id)])):
                nursery.start_soon(call, pending if call == backend.wait else new_id())
            await trio.sleep(step * 0.0003)
            nursery.cancel_scope.cancel()

    # The pool's, and the one that listens.
    assert connections(fragile) <= 4
    await backend.aclose()
    await until(lambda: connections(fragile) == 0)


async def test_another_s_transaction_is_waited_for_and_then_given_up(make, tmp_path):
    path = f"{tmp_path}/results.db"
    backend, hasty = make(f"sqlite:///{path}"), make(f"sqlite:///{path}?timeout=0.1")
    await backend.store([stored(new_id())])
    task_id = new_id()

    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BrokerUnavailable, match="database is locked"):
            await hasty.store([stored(task_id)])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(backend.store, [stored(task_id)])
            await trio.sleep(0.1)
            other.execute("ROLLBACK")
    finally:
        other.close()

    assert (await hasty.fetch(task_id)).state is TaskState.SUCCESS
