"""Results in Redis: one string a task, kept for a time, and a channel a task to say that it is finished."""

import math
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from chicory.backends.base import StoredRecord, workers_of
from chicory.brokers.base import Broker
from chicory.brokers.redis import RedisBroker
from chicory.brokers.redis.keys import UNFINISHED_MS, ResultKeys
from chicory.brokers.redis.scripts import script
from chicory.config import RedisBackendConfig
from chicory.errors import BrokerUnavailable
from chicory.ids import born
from chicory.links.executor import CALLERS, running
from chicory.links.per_run import PerRun
from chicory.links.redis import Connection
from chicory.links.redis_address import address_of
from chicory.links.redis_listener import Listener
from chicory.links.redis_pool import Pool, verify_server
from chicory.types import LAST_STEP, ResultRecord, TaskState, WorkerInfo
from chicory.wire import unpack_record

_PENDING = b'{"state":"pending"}'
_TIMEOUT = 5.0
# Records in one exchange.
_BATCH = 1000
_PAUSE = 0.2


class RedisBackend:
    """See `backends.base.Backend`."""

    callers = CALLERS

    def __init__(self, config: RedisBackendConfig, *, hint: str = "") -> None:
        self.config = config
        self._broker: Broker | None = None
        self.address = address_of(config)
        self.keys = ResultKeys(config.key_prefix, math.ceil(config.result_ttl * 1000))
        pool = Pool(self.address, timeout=_TIMEOUT, verify=verify_server, hint=hint)
        self._pools = PerRun(pool.on)
        self._listeners = PerRun(lambda _: Listener(self._pool, presence=self.keys.waiting))

    def __repr__(self) -> str:
        return f"<RedisBackend {self.address}>"

    @property
    def _pool(self) -> Pool:
        return self._pools.current()

    def joins(self, broker: Broker) -> bool:
        """See `Backend.joins`: the same server and database, and no cluster, whose scripts stay within one slot."""
        return isinstance(broker, RedisBroker) and broker.address == self.address and not broker.config.cluster

    def attend(self, broker: Broker) -> None:
        """See `Backend.attend`."""
        self._broker = broker

    async def expect(self, task_ids: Sequence[str]) -> None:
        """See `Backend.expect`."""
        async with self._pool.connection() as connection:
            commands = [
                ("SET", self.keys.record + task_id, _PENDING, "NX", "PX", UNFINISHED_MS) for task_id in task_ids
            ]
            await self._pipeline(connection, commands)

    async def store(self, records: Sequence[StoredRecord]) -> None:
        """See `Backend.store`."""
        await self._keep(records, note=False)

    async def note(self, records: Sequence[StoredRecord]) -> None:
        """See `Notable.note`."""
        await self._keep(records, note=True)

    async def reopen(self, task_id: str) -> None:
        """See `Notable.reopen`."""
        async with self._pool.connection() as connection:
            await script("reopen").run(connection, [self.keys.record + task_id], [UNFINISHED_MS], timeout=_TIMEOUT)

    async def _keep(self, records: Sequence[StoredRecord], *, note: bool) -> None:
        calls: list[tuple[list[str], list[Any]]] = []
        for kept in records:
            step = unpack_record(kept.record).step
            ttl = "" if note else self.keys.ttl_ms if step == LAST_STEP else UNFINISHED_MS
            told = self.keys.done + kept.task_id if step == LAST_STEP else ""
            calls.append(([self.keys.record + kept.task_id], [kept.record, ttl, told, step, LAST_STEP]))
        async with self._pool.connection() as connection:
            for start in range(0, len(calls), _BATCH):
                await script("store").run_many(connection, calls[start : start + _BATCH], timeout=_TIMEOUT)

    async def _pipeline(self, connection: Connection, commands: Sequence[tuple[object, ...]]) -> None:
        if not commands:
            return
        for reply in await connection.pipeline(commands, timeout=_TIMEOUT):
            if isinstance(reply, Exception):
                raise reply

    async def fetch(self, task_id: str) -> ResultRecord:
        """See `Backend.fetch`."""
        return self._known(task_id, await self._pool.call("GET", self.keys.record + task_id))

    async def fetch_many(self, task_ids: Sequence[str]) -> Mapping[str, ResultRecord]:
        """See `Backend.fetch_many`."""
        found: dict[str, ResultRecord] = {}
        for start in range(0, len(task_ids), _BATCH):
            ids = task_ids[start : start + _BATCH]
            raws = await self._pool.call("MGET", *[self.keys.record + task_id for task_id in ids])
            found |= {task_id: self._known(task_id, raw) for task_id, raw in zip(ids, raws, strict=True)}
        return found

    def _known(self, task_id: str, raw: bytes | None) -> ResultRecord:
        if raw is not None:
            return unpack_record(raw)
        made = born(task_id)
        # The id says when it was made, so what is gone can be told from what never was.
        if made is not None and time.time() - made > self.keys.ttl_ms / 1000:
            return ResultRecord(TaskState.EXPIRED)
        return ResultRecord(TaskState.UNKNOWN)

    async def wait(self, task_id: str) -> ResultRecord:
        """See `Backend.wait`."""
        record = await self.fetch(task_id)
        return (await self.wait_many([task_id], 1))[task_id] if record.state.awaited else record

    async def wait_many(self, task_ids: Collection[str], count: int) -> Mapping[str, ResultRecord]:
        """See `Backend.wait_many`.  A message on a channel is only a hint; what counts is the record."""
        waiting = set(task_ids)
        over: dict[str, ResultRecord] = {}
        count = min(count, len(waiting))
        while len(over) < count:
            channels = {self.keys.done + task_id: task_id for task_id in waiting - over.keys()}
            try:
                async with self._listeners.current().listening(channels) as told:
                    asked: Collection[str] = channels.values()
                    while True:
                        found = await self.fetch_many(list(asked))
                        over |= {task_id: record for task_id, record in found.items() if not record.state.awaited}
                        if len(over) >= count:
                            break
                        asked = [channels[channel] for channel in await told()]
            except BrokerUnavailable:
                await running().sleep(_PAUSE)
        return over

    async def get_active_workers(self) -> list[WorkerInfo]:
        """See `Backend.get_active_workers`."""
        return await workers_of(self._broker)

    async def aclose(self) -> None:
        """See `Backend.aclose`."""
        self._listeners.close()
        self._pools.close()
        await running().sleep(0)
