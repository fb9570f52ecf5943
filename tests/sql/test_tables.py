"""Rows: made once, moved forward under any number of writers, and deleted when their time is over."""

import os
import random
import stat

import pytest
import trio

from chicory import BrokerType, Chicory
from chicory.backends.base import StoredRecord
from chicory.backends.sql import SqlBackend
from chicory.config import SqlBackendConfig
from chicory.errors import BrokerRefused
from chicory.ids import new_id
from chicory.testing import running_worker
from chicory.types import ResultRecord, TaskState
from chicory.wire import MAX_BODY, pack_record


def stored(task_id, state=TaskState.SUCCESS, value=None):
    return StoredRecord(task_id, pack_record(ResultRecord(state, value)))


async def gone(backend, task_ids):
    """Wait until none of them is shown any more."""
    with trio.fail_after(10):
        for task_id in task_ids:
            while (await backend.fetch(task_id)).state is not TaskState.EXPIRED:
                await trio.sleep(0.02)


async def test_many_that_use_a_database_for_the_first_time_at_once_make_one_table(make, url):
    backends = [make(url) for _ in range(6)]
    ids = [new_id() for _ in backends]

    async with trio.open_nursery() as nursery:
        for backend, task_id in zip(backends, ids, strict=True):
            nursery.start_soon(backend.store, [stored(task_id)])

    assert [(await backends[0].fetch(task_id)).state for task_id in ids] == [TaskState.SUCCESS] * len(ids)


async def test_of_many_writers_with_crosswise_batches_the_first_to_finish_wins_everywhere(make, url):
    backends = [make(url) for _ in range(4)]
    ids = [new_id() for _ in range(50)]

    async def write(number, backend):
        for state in (TaskState.PENDING, TaskState.RETRY, TaskState.SUCCESS, TaskState.RETRY, TaskState.PENDING):
            order = random.Random(number).sample(ids, len(ids))
            await backend.store([stored(task_id, state, number) for task_id in order])

    async with trio.open_nursery() as nursery:
        for number, backend in enumerate(backends):
            nursery.start_soon(write, number, backend)

    records = [await backends[0].fetch(task_id) for task_id in ids]
    assert {record.state for record in records} == {TaskState.SUCCESS}
    # A batch is one transaction.
    assert len({record.value for record in records}) == 1


async def test_ids_differ_by_case(backend):
    await backend.store([stored("task-A", value="A"), stored("task-a", value="a")])

    assert (await backend.fetch("task-A")).value == "A"
    assert (await backend.fetch("task-a")).value == "a"


async def test_a_batch_of_large_results_is_stored(backend):
    ids = [new_id() for _ in range(256)]
    value = "x" * (MAX_BODY - 1000)

    await backend.store([stored(task_id, value=value) for task_id in ids[:16]])
    await backend.store([stored(task_id) for task_id in ids])

    assert (await backend.fetch(ids[0])).value == value
    assert (await backend.fetch(ids[-1])).state is TaskState.SUCCESS


async def test_cleaning_deletes_what_is_over_a_few_at_a_time_and_nothing_else(make, url):
    brief, lasting = make(url, result_ttl=1), make(url)
    old, pending, kept = [new_id() for _ in range(5)], new_id(), new_id()
    await brief.store([stored(task_id) for task_id in old])
    await brief.expect([pending])
    await lasting.store([stored(kept)])
    assert await brief.clean(10) == 0

    await gone(brief, old)
    deleted = [await brief.clean(2) for _ in range(4)]

    assert deleted == [2, 2, 1, 0]
    assert (await brief.fetch(pending)).state is TaskState.PENDING
    assert (await lasting.fetch(kept)).state is TaskState.SUCCESS
    assert {(await lasting.fetch(task_id)).state for task_id in old} == {TaskState.UNKNOWN}


async def test_whoever_schedules_cleans(make, url):
    backend, lasting = make(url, result_ttl=1), make(url)
    old = new_id()
    await backend.store([stored(old)])
    await gone(backend, [old])

    async with running_worker(Chicory(BrokerType.MEMORY, backend)):
        with trio.fail_after(10):
            # What is deleted has no id that says its age to one who keeps results for longer.
            while (await lasting.fetch(old)).state is TaskState.EXPIRED:
                await trio.sleep(0.02)


async def test_a_record_whose_time_is_over_makes_room_for_a_new_one(make, url):
    backend = make(url, result_ttl=1)
    task_id = new_id()
    await backend.store([stored(task_id, value="old")])
    await gone(backend, [task_id])

    await backend.expect([task_id])

    assert (await backend.fetch(task_id)).state is TaskState.PENDING


async def test_a_table_that_was_dropped_is_made_again(make, postgresql_server):
    backend = make(postgresql_server.url)
    await backend.store([stored(new_id())])
    with postgresql_server.client() as client:
        client.execute(f'DROP TABLE "{backend.config.table_prefix}_results_v1"')
    with pytest.raises(BrokerRefused, match="does not exist"):
        await backend.fetch(new_id())

    assert (await backend.fetch(new_id())).state is TaskState.UNKNOWN


async def test_a_file_of_sqlite_belongs_to_its_owner_alone(make, tmp_path):
    backend = make(f"sqlite:///{tmp_path}/results.db")
    old = os.umask(0)
    try:
        await backend.store([stored(new_id())])
    finally:
        os.umask(old)

    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}


async def test_a_file_that_cannot_be_made_or_is_none_is_a_refusal(make, tmp_path):
    (tmp_path / "text").write_text("no database at all, but a text that is long enough to be looked at\n" * 100)

    with pytest.raises(BrokerRefused, match="unable to open database file"):
        await make(f"sqlite:///{tmp_path}/nowhere/results.db").fetch("x")
    with pytest.raises(BrokerRefused, match="not a database"):
        await make(f"sqlite:///{tmp_path}/text").fetch("x")


def test_a_backend_serves_one_run_after_another(url):
    backend = SqlBackend(SqlBackendConfig(url=url, table_prefix=f"t{os.getpid()}_runs"))
    task_id = new_id()

    async def finish():
        await backend.store([stored(task_id, value=1)])
        await backend.aclose()

    async def look():
        try:
            return await backend.wait(task_id)
        finally:
            await backend.aclose()

    trio.run(finish)

    assert trio.run(look).value == 1
