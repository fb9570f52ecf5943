"""The Redis Streams broker."""

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import trio
from msgspec.structs import replace

from chicory.backends.base import Backend
from chicory.brokers.base import ROADS, health_of
from chicory.brokers.redis.consumer import RedisConsumer
from chicory.brokers.redis.deadletters import DeadLetters
from chicory.brokers.redis.diagnosis import ask, diagnose
from chicory.brokers.redis.keeper import RedisKeeper
from chicory.brokers.redis.keys import CANCELLED_MS, UNFINISHED_MS, CancelKeys, KeepsResults, Keys, ResultKeys
from chicory.brokers.redis.outbox import Item
from chicory.brokers.redis.publisher import Publisher
from chicory.brokers.redis.scripts import script
from chicory.brokers.redis.timetable import RedisTimetable
from chicory.brokers.redis.uniques import holding
from chicory.brokers.redis.workers import listed
from chicory.config import RedisBrokerConfig
from chicory.delay import check_delay
from chicory.errors import BrokerError
from chicory.ids import born
from chicory.links.executor import CALLERS, running
from chicory.links.per_run import PerRun
from chicory.links.redis_address import Address, address_of
from chicory.links.redis_pool import Pool, parse_info, verify_server
from chicory.outage import Pace
from chicory.types import DLQMessage, Finding, Health, QueueSizes, TaskMessage, WorkerInfo
from chicory.wire import check_queue, pack

# Seconds a consumer may take to give back what it holds, whatever happens around it.
_FAREWELL = 5.0


class RedisBroker:
    """See `brokers.base.Broker`.  Nothing connects before it is used.

    hint: what to tell a user whom no server answers, such as how to start the embedded one.
    """

    callers = CALLERS

    def __init__(self, config: RedisBrokerConfig, *, hint: str = "") -> None:
        self.config = config
        self.address: Address = address_of(config)
        pool = Pool(self.address, timeout=config.connect_timeout, verify=verify_server, hint=hint)
        self._pools = PerRun(pool.on)
        self._publishers = PerRun(lambda _: self._new_publisher())
        self._hint = hint
        self._results: ResultKeys | None = None
        self._reopen: Callable[[str], Awaitable[None]] | None = None
        self._keys: dict[str, Keys] = {}
        self._cancels = CancelKeys(config.key_prefix, config.cluster)
        self._workers = f"{config.key_prefix}:workers"

    def __repr__(self) -> str:
        return f"<RedisBroker {self.address}>"

    @property
    def _pool(self) -> Pool:
        return self._pools.current()

    def join(self, backend: Backend) -> None:
        """Store the results of *backend*, which `joins` this broker, together with settling."""
        if isinstance(backend, KeepsResults):
            self._results = backend.keys

    def announce(self, reopen: Callable[[str], Awaitable[None]]) -> None:
        """See `Broker.announce`."""
        self._reopen = reopen

    # -- publishing ---------------------------------------------------------------------------------------------------

    async def publish(self, message: TaskMessage, queue: str | None = None, *, delay: float | None = None) -> str:
        """See `Broker.publish`."""
        message = _routed(message, queue)
        keys = self._keys_of(message.queue)
        item = self._item(keys, message, delay)
        instead = await self._publishers.current().publish(keys, self._level(message), (item,))
        return instead.get(message.id, message.id)

    async def publish_many(self, messages: Sequence[TaskMessage], queue: str | None = None) -> Sequence[str]:
        """See `Broker.publish_many`."""
        lanes: dict[tuple[str, int], list[Item]] = {}
        for message in messages:
            routed = _routed(message, queue)
            item = self._item(self._keys_of(routed.queue), routed, None)
            lanes.setdefault((routed.queue, self._level(routed)), []).append(item)
        publisher = self._publishers.current()
        if not lanes:
            await running().sleep(0)
        published = 0
        instead: dict[str, str] = {}
        for (name, level), items in lanes.items():
            try:
                instead |= await publisher.publish(self._keys_of(name), level, items)
            except BrokerError as error:
                error.published += published
                raise
            published += len(items)
        return [instead.get(message.id, message.id) for message in messages]

    def _item(self, keys: Keys, message: TaskMessage, delay: float | None) -> Item:
        if delay is not None:
            due = f"+{check_delay(delay):.6f}" if delay else ""
        else:
            due = "" if message.due is None else f"@{message.due:.6f}"
        unique = "" if message.unique is None else holding(keys, message)
        return Item(message.id, pack(message), due, not message.ignore_result, unique)

    def _level(self, message: TaskMessage) -> int:
        top = self.config.max_priority
        return 0 if top is None or message.priority is None else min(max(message.priority, 0), top)

    def _new_publisher(self) -> Publisher:
        config, pool = self.config, self._pool
        return Publisher(
            pool,
            timeout=config.publish_timeout,
            pace=Pace.of(config),
            limit=config.max_stream_length,
            results=self._results,
        )

    def _keys_of(self, queue: str) -> Keys:
        keys = self._keys.get(queue)
        if keys is None:
            levels = (self.config.max_priority or 0) + 1
            keys = Keys(self.config.key_prefix, check_queue(queue), self.config.cluster, levels)
            self._keys[queue] = keys
        return keys

    # -- working ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def consumer(self, queues: Sequence[str], *, name: str, limit: int) -> AsyncGenerator[RedisConsumer]:
        """See `Broker.consumer`."""
        consumer = RedisConsumer(
            self._pool,
            [self._keys_of(queue) for queue in queues],
            name=name,
            limit=limit,
            group=self.config.consumer_group,
            lease=self.config.claim_min_idle_ms / 1000,
            block_ms=self.config.block_ms,
            timeout=self.config.connect_timeout,
            dlq_max_length=self.config.dlq_max_length,
            results=self._results,
            cancels=self._cancels,
            workers=self._workers,
        )
        try:
            await consumer.join()
            try:
                yield consumer
            finally:
                with trio.move_on_after(_FAREWELL, shield=True):
                    await consumer.leave()
        finally:
            consumer.close()

    def keeper(self, queues: Sequence[str]) -> AbstractAsyncContextManager[RedisKeeper]:
        """See `Broker.keeper`."""
        return self._keeper(queues)

    @asynccontextmanager
    async def _keeper(self, queues: Sequence[str]) -> AsyncGenerator[RedisKeeper]:
        keeper = RedisKeeper(
            self._pool,
            [self._keys_of(queue) for queue in queues],
            group=self.config.consumer_group,
            lease=self.config.claim_min_idle_ms / 1000,
            timeout=self.config.connect_timeout,
            workers=self._workers,
        )
        try:
            yield keeper
        finally:
            keeper.close()

    def timetable(self) -> RedisTimetable:
        """See `Broker.timetable`."""
        limit = self.config.max_stream_length
        return RedisTimetable(self._pool, self._keys_of, self._level, limit=limit, results=self._results)

    # -- dead letters -------------------------------------------------------------------------------------------------

    def _dead(self, queue: str) -> DeadLetters:
        return DeadLetters(self._pool, self._keys_of(queue), results=self._results, reopen=self._reopen)

    async def get_dlq_messages(self, queue: str = "default", count: int = 100, start: str = "") -> list[DLQMessage]:
        """See `Broker.get_dlq_messages`."""
        return await self._dead(queue).list(count, start)

    async def replay_from_dlq(self, message_id: str, queue: str = "default", *, reset_retries: bool = True) -> bool:
        """See `Broker.replay_from_dlq`."""
        return await self._dead(queue).replay(message_id, reset_retries=reset_retries)

    async def delete_from_dlq(self, message_id: str, queue: str = "default") -> bool:
        """See `Broker.delete_from_dlq`."""
        return await self._dead(queue).delete(message_id)

    async def purge_dlq(self, queue: str = "default") -> int:
        """See `Broker.purge_dlq`."""
        return await self._dead(queue).purge()

    async def get_dlq_count(self, queue: str = "default") -> int:
        """See `Broker.get_dlq_count`."""
        return int(await self._pool.call("XLEN", self._keys_of(queue).dead))

    # -- cancelling ---------------------------------------------------------------------------------------------------

    async def cancel(self, task_id: str) -> bool:
        """See `CancellingBroker.cancel`."""
        cancels, results = self._cancels, self._results
        keys, made = [cancels.cancelled, cancels.version], born(task_id)
        old = results is not None and made is not None and time.time() - made > results.ttl_ms / 1000
        if results is not None:
            keys.append(results.record + task_id)
        done = "" if results is None else results.done + task_id
        args = [task_id, cancels.channel, done, UNFINISHED_MS, CANCELLED_MS, "1" if old else ""]
        return bool(await self._run("cancel", keys, args))

    # -- looking ------------------------------------------------------------------------------------------------------

    async def get_queue_sizes(self, queue: str = "default") -> QueueSizes:
        """See `Broker.get_queue_sizes`."""
        keys = self._keys_of(queue)
        names = [keys.dead]
        for level in range(keys.levels):
            names += (keys.stream(level), keys.delayed(level))
        entries, delivered, delayed, dead = await self._run("sizes", names, [self.config.consumer_group])
        return QueueSizes(ready=entries - delivered, delayed=delayed, delivered=delivered, dead=dead)

    async def get_queue_size(self, queue: str = "default") -> int:
        """See `Broker.get_queue_size`."""
        return (await self.get_queue_sizes(queue)).ready

    async def get_pending_count(self, queue: str = "default") -> int:
        """See `Broker.get_pending_count`."""
        return (await self.get_queue_sizes(queue)).delivered

    async def get_consumer_count(self, queue: str = "default") -> int:
        """See `Broker.get_consumer_count`."""
        return int(await self._run("consumers", [self._keys_of(queue).leases], []))

    async def get_active_workers(self) -> list[WorkerInfo]:
        """See `ListsWorkers.get_active_workers`."""
        async with self._pool.connection() as connection:
            return await listed(connection, self._workers, self._keys_of, timeout=self._pool.timeout)

    async def purge_queue(self, queue: str = "default", *, delayed: bool = True) -> int:
        """See `Broker.purge_queue`."""
        keys, results = self._keys_of(queue), self._results
        args = [
            "1" if delayed else "",
            "" if results is None else results.record,
            "" if results is None else results.done,
        ]
        total = 0
        for level in range(keys.levels):
            more = 1
            while more:
                names = [keys.stream(level), keys.delayed(level), keys.counters]
                deleted, more = await self._run("purge", names, [self.config.consumer_group, *args, keys.unique("")])
                total += deleted
        return total

    async def counters(self, queue: str = "default") -> dict[str, int]:
        """See `Broker.counters`."""
        reply = await self._pool.call("HGETALL", self._keys_of(queue).counters)
        counted = {name.decode(): int(value) for name, value in zip(reply[::2], reply[1::2], strict=True)}
        return dict.fromkeys(ROADS, 0) | counted

    async def healthcheck(self) -> Health:
        """See `Broker.healthcheck`."""
        return await health_of(self)

    async def ping(self) -> str:
        """See `Broker.ping`."""
        info = parse_info(await self._pool.call("INFO", "server"))
        if "valkey_version" in info:
            return f"Valkey {info['valkey_version']}"
        return f"Redis {info.get('redis_version', '?')}"

    async def examine(self) -> list[Finding]:
        """See `Broker.examine`."""
        # Not from our own pool, which opens none to a server that will not do.
        timeout = self.config.connect_timeout
        connection = await Pool(self.address, timeout=timeout, hint=self._hint, executor=running()).open()
        try:
            return diagnose(await ask(connection, timeout))
        finally:
            connection.close()

    async def aclose(self) -> None:
        """See `Broker.aclose`."""
        self._publishers.close()
        self._pools.close()
        await running().sleep(0)

    async def _run(self, name: str, keys: list[str], args: list[Any]) -> Any:
        async with self._pool.connection() as connection:
            return await script(name).run(connection, keys, args, timeout=self._pool.timeout)


def _routed(message: TaskMessage, queue: str | None) -> TaskMessage:
    return message if queue is None or queue == message.queue else replace(message, queue=queue)
