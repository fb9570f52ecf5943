"""Results in Redis: one string a task, kept for a time, and a channel a task to say that it is finished."""

import math
import time
from collections.abc import Sequence

from chicory.backends.base import StoredRecord
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
from chicory.types import ResultRecord, TaskState
from chicory.wire import unpack_record

_PENDING = b'{"state":"pending"}'
_TIMEOUT = 5.0
_PAUSE = 0.2


class RedisBackend:
    """See `backends.base.Backend`."""

    callers = CALLERS

    def __init__(self, config: RedisBackendConfig, *, hint: str = "") -> None:
        self.config = config
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

    async def expect(self, task_ids: Sequence[str]) -> None:
        """See `Backend.expect`."""
        async with self._pool.connection() as connection:
            commands = [
                ("SET", self.keys.record + task_id, _PENDING, "NX", "PX", UNFINISHED_MS) for task_id in task_ids
            ]
            await self._pipeline(connection, commands)

    async def store(self, records: Sequence[StoredRecord]) -> None:
        """See `Backend.store`."""
        async with self._pool.connection() as connection:
            for kept in records:
                final = unpack_record(kept.record).state.finished
                keys = [self.keys.record + kept.task_id]
                args = [kept.record, self.keys.ttl_ms if final else UNFINISHED_MS, self.keys.done + kept.task_id]
                await script("store").run(connection, keys, args, timeout=_TIMEOUT)

    async def _pipeline(self, connection: Connection, commands: Sequence[tuple[object, ...]]) -> None:
        if not commands:
            return
        for reply in await connection.pipeline(commands, timeout=_TIMEOUT):
            if isinstance(reply, Exception):
                raise reply

    async def fetch(self, task_id: str) -> ResultRecord:
        """See `Backend.fetch`."""
        raw = await self._pool.call("GET", self.keys.record + task_id)
        if raw is not None:
            return unpack_record(raw)
        made = born(task_id)
        # The id says when it was made, so what is gone can be told from what never was.
        if made is not None and time.time() - made > self.keys.ttl_ms / 1000:
            return ResultRecord(TaskState.EXPIRED)
        return ResultRecord(TaskState.UNKNOWN)

    async def wait(self, task_id: str) -> ResultRecord:
        """See `Backend.wait`.  A message on the channel is only a hint; what counts is the record."""
        record = await self.fetch(task_id)
        while record.state in (TaskState.PENDING, TaskState.RETRYING):
            listener = self._listeners.current()
            try:
                async with listener.listening(self.keys.done + task_id) as told:
                    record = await self.fetch(task_id)
                    if record.state in (TaskState.PENDING, TaskState.RETRYING):
                        await told()
                        record = await self.fetch(task_id)
            except BrokerUnavailable:
                await running().sleep(_PAUSE)
        return record

    async def aclose(self) -> None:
        """See `Backend.aclose`."""
        self._listeners.close()
        self._pools.close()
        await running().sleep(0)
