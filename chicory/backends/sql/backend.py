"""Results in a table, one row a task, kept for a time by the database's clock."""

import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial

import attrs
import trio
from sqlalchemy import Connection

from chicory.backends.base import StoredRecord, wait_each, workers_of
from chicory.backends.sql.address import address_of
from chicory.backends.sql.database import Database
from chicory.backends.sql.notices import Notices, payloads
from chicory.backends.sql.rows import Row, furthest, known
from chicory.backends.sql.tables import results
from chicory.backends.sql.watch import Watch
from chicory.brokers.base import Broker
from chicory.config import SqlBackendConfig
from chicory.links.executor import CALLERS
from chicory.links.per_run import PerRun
from chicory.links.trio_thread import closed, on_trio
from chicory.types import ResultRecord, TaskState, WorkerInfo
from chicory.wire import pack_record, unpack_record

_PENDING = pack_record(ResultRecord(TaskState.PENDING))
# Milliseconds a task may be unfinished before nobody believes in it: longer than any message should wait.
_UNFINISHED_MS = 366 * 24 * 3600 * 1000
# Rows in one transaction, ids in one question.
_BATCH = 1000


@attrs.frozen(eq=False)
class _Ends:
    """What one trio run has open."""

    database: Database
    watch: Watch

    def close(self) -> None:
        self.watch.close()
        self.database.close()


class SqlBackend:
    """See `backends.base.Backend`, and `Cleanable`.

    It may serve several trio runs one after another, and a child after a fork: connections are of one run only.  For
    callers of other libraries it works in the process's own trio thread: so all of them share its connections, and the
    one look at what they wait for.
    """

    callers = CALLERS

    def __init__(self, config: SqlBackendConfig) -> None:
        self.config = config
        self._broker: Broker | None = None
        self.address = address_of(config.url)
        self._results = results(self.address.kind, config.table_prefix)
        self._ends = PerRun(lambda _: self._open())

    def __repr__(self) -> str:
        return f"<SqlBackend {self.address}>"

    def joins(self, broker: Broker) -> bool:
        """See `Backend.joins`: no broker stores results in a database."""
        return False

    def attend(self, broker: Broker) -> None:
        """See `Backend.attend`."""
        self._broker = broker

    async def expect(self, task_ids: Sequence[str]) -> None:
        """See `Backend.expect`."""
        await self.store([StoredRecord(task_id, _PENDING) for task_id in task_ids])

    @on_trio
    async def store(self, records: Sequence[StoredRecord]) -> None:
        """See `Backend.store`."""
        rows = furthest(records)
        for start in range(0, len(rows), _BATCH):
            await self._ends.current().database.write(partial(self._store, rows[start : start + _BATCH]))

    @on_trio
    async def note(self, records: Sequence[StoredRecord]) -> None:
        """See `Notable.note`."""
        given = [{"id": row.task_id, "new_step": row.step, "new_record": row.record} for row in furthest(records)]
        for start in range(0, len(given), _BATCH):
            rows = given[start : start + _BATCH]
            await self._ends.current().database.write(partial(self._note, rows))

    @on_trio
    async def reopen(self, task_id: str) -> None:
        """See `Notable.reopen`."""
        await self._ends.current().database.write(partial(self._reopen, task_id))

    @on_trio
    async def fetch(self, task_id: str) -> ResultRecord:
        """See `Backend.fetch`."""
        return (await self._look([task_id]))[task_id]

    @on_trio
    async def fetch_many(self, task_ids: Sequence[str]) -> Mapping[str, ResultRecord]:
        """See `Backend.fetch_many`."""
        return await self._look(task_ids)

    @on_trio
    async def wait(self, task_id: str) -> ResultRecord:
        """See `Backend.wait`.  Pushed by PostgreSQL; elsewhere this process looks, for all who wait in it at once."""
        record = await self.fetch(task_id)
        return await self._ends.current().watch.wait(task_id) if record.state.awaited else record

    @on_trio
    async def wait_many(self, task_ids: Collection[str], count: int) -> Mapping[str, ResultRecord]:
        """See `Backend.wait_many`.  The watch looks for all at once."""
        ids = list(dict.fromkeys(task_ids))
        records = await self._look(ids)
        over = {task_id: record for task_id, record in records.items() if not record.state.awaited}
        if len(over) < min(count, len(ids)):
            left = [task_id for task_id in ids if task_id not in over]
            over |= await wait_each(self._ends.current().watch.wait, left, count - len(over))
        return over

    @on_trio
    async def clean(self, limit: int) -> int:
        """See `Cleanable.clean`."""
        statement = self._results.clean(limit)
        return await self._ends.current().database.write(lambda connection: connection.execute(statement).rowcount)

    async def get_active_workers(self) -> list[WorkerInfo]:
        """See `Backend.get_active_workers`."""
        return await workers_of(self._broker)

    async def aclose(self) -> None:
        """See `Backend.aclose`."""
        await closed(self, self._close)

    async def _close(self) -> None:
        ends = self._ends.take()
        if ends is not None:
            ends.watch.close()
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(ends.database.close)
        await trio.lowlevel.checkpoint()

    def _open(self) -> _Ends:
        database = Database(self.address, self._results, size=self.config.pool_size)
        notices = Notices(database, self._results.table.name) if self._results.notify is not None else None
        return _Ends(database, Watch(self._over, notices))

    async def _over(self, task_ids: Collection[str]) -> Mapping[str, ResultRecord]:
        records = await self._look(list(task_ids))
        return {task_id: record for task_id, record in records.items() if not record.state.awaited}

    async def _look(self, task_ids: Sequence[str]) -> Mapping[str, ResultRecord]:
        found: list[tuple[str, bytes, bool]] = []
        for start in range(0, len(task_ids), _BATCH):
            ids = {"ids": task_ids[start : start + _BATCH]}
            found += await self._ends.current().database.read(lambda connection, ids=ids: self._fetch(ids, connection))
        return known(task_ids, found, ttl=self.config.result_ttl, now=time.time())

    def _fetch(self, ids: Mapping[str, Sequence[str]], connection: Connection) -> list[tuple[str, bytes, bool]]:
        return [(row.task_id, row.record, row.over) for row in connection.execute(self._results.fetch, ids)]

    def _note(self, rows: Sequence[Mapping[str, object]], connection: Connection) -> None:
        connection.execute(self._results.note, rows)

    def _reopen(self, task_id: str, connection: Connection) -> None:
        for _, record, over in self._fetch({"ids": [task_id]}, connection):
            if not over and unpack_record(bytes(record)).state is TaskState.DEAD_LETTERED:
                expires_at = (connection.scalar(self._results.now) or 0) + _UNFINISHED_MS
                given = {"id": task_id, "seen": record, "new_record": _PENDING, "new_expiry": expires_at}
                connection.execute(self._results.reopen, given)

    def _store(self, rows: Sequence[Row], connection: Connection) -> None:
        now = connection.scalar(self._results.now) or 0
        lifetime = self.config.result_ttl * 1000
        ends = {False: now + max(_UNFINISHED_MS, lifetime), True: now + lifetime}
        given = [{**attrs.asdict(row), "expires_at": ends[row.finished]} for row in rows]
        if self._results.arrays:
            connection.execute(self._results.upsert, {name: [row[name] for row in given] for name in given[0]})
        else:
            connection.execute(self._results.upsert, given)
        if self._results.notify is not None:
            channel = self._results.table.name
            for ids in payloads([row.task_id for row in rows if row.finished]):
                connection.execute(self._results.notify, {"channel": channel, "ids": ids})
