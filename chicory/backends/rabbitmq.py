"""Results as messages: each client has a queue of its own, and what its tasks come to is sent there.

Only who sent a task hears of its result, and it can be read once.  The queue outlives a broken connection, and goes by
itself when nobody has read from it for as long as results are kept.
"""

import logging
import random
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from functools import partial

import attrs
import trio

from chicory.backends.base import StoredRecord, wait_each, workers_of
from chicory.brokers.base import Broker
from chicory.brokers.rabbitmq.broker import RabbitMQBroker
from chicory.brokers.rabbitmq.line import Line
from chicory.brokers.rabbitmq.route import Route
from chicory.config import RabbitMQBrokerConfig
from chicory.errors import BrokerError, PayloadError, UsageError
from chicory.ids import new_id
from chicory.links import amqp_methods
from chicory.links.amqp_address import addresses_of
from chicory.links.amqp_frames import Delivered
from chicory.links.amqp_paths import connector
from chicory.links.amqp_port import Channel
from chicory.outage import Pace
from chicory.types import ResultRecord, TaskState, WorkerInfo
from chicory.wire import unpack_record

log = logging.getLogger("chicory.rabbitmq")

_PENDING = ResultRecord(TaskState.PENDING)
_UNKNOWN = ResultRecord(TaskState.UNKNOWN)


@attrs.define(eq=False)
class _Awaited:
    """A task of ours: what is known of it, and who waits."""

    record: ResultRecord = _PENDING
    changed: trio.Event = attrs.field(factory=trio.Event)


class RpcBackend:
    """See `backends.base.Backend`.  Only with a RabbitMQ broker, which sends each result where its task says."""

    def __init__(self, config: RabbitMQBrokerConfig, *, result_ttl: int) -> None:
        timeout, heartbeat = config.connect_timeout, config.heartbeat
        self._route = Route(addresses_of(config), connector(config.data_path), timeout=timeout, heartbeat=heartbeat)
        self._config = config
        self._broker: Broker | None = None
        self._ttl = result_ttl
        self._queue = f"chicory.reply.{new_id()}"
        self._awaited: dict[str, _Awaited] = {}
        # Finished and not read, the oldest first, each with the instant at which it is forgotten.
        self._finished: deque[tuple[float, str]] = deque()
        self._line: Line | None = None
        self._run: trio.lowlevel.TrioToken | None = None
        self._channel: Channel | None = None
        self._turn = trio.Lock()
        self._ended = trio.Event()

    def __repr__(self) -> str:
        return f"<RpcBackend {self._route}>"

    def joins(self, broker: Broker) -> bool:
        """See `Backend.joins`."""
        return isinstance(broker, RabbitMQBroker) and broker.route.addresses == self._route.addresses

    # -- what a joined broker asks for

    async def reply_to(self, task_ids: Sequence[str]) -> str:
        """Expect the results of these tasks; returns where they are to be sent."""
        self._forget_old()
        await self._listen()
        for task_id in task_ids:
            self._awaited.setdefault(task_id, _Awaited())
        return self._queue

    def forget(self, task_ids: Collection[str]) -> None:
        """These were not published after all."""
        for task_id in task_ids:
            self._take(task_id)

    # -- what a client asks for

    def attend(self, broker: Broker) -> None:
        """See `Backend.attend`."""
        self._broker = broker

    async def expect(self, task_ids: Sequence[str]) -> None:
        """See `Backend.expect`."""
        raise UsageError("results are sent by rpc only where the broker is the same RabbitMQ")

    async def store(self, records: Sequence[StoredRecord]) -> None:
        """See `Backend.store`."""
        raise UsageError("results are sent by rpc only where the broker is the same RabbitMQ")

    async def fetch(self, task_id: str) -> ResultRecord:
        """See `Backend.fetch`.  A finished record is given once."""
        await trio.lowlevel.checkpoint()
        awaited = self._awaited.get(task_id)
        if awaited is None:
            return _UNKNOWN
        if awaited.record.state.finished:
            self._take(task_id)
        return awaited.record

    async def wait(self, task_id: str) -> ResultRecord:
        """See `Backend.wait`.  Several may wait at once, and all are told; afterwards the result is gone."""
        await trio.lowlevel.checkpoint()
        awaited = self._awaited.get(task_id)
        if awaited is None:
            return _UNKNOWN
        while not awaited.record.state.finished:
            await self._listen()
            await awaited.changed.wait()
        self._take(task_id)
        return awaited.record

    async def fetch_many(self, task_ids: Sequence[str]) -> Mapping[str, ResultRecord]:
        """See `Backend.fetch_many`.  Finished records are given once."""
        return {task_id: await self.fetch(task_id) for task_id in task_ids}

    async def wait_many(self, task_ids: Collection[str], count: int) -> Mapping[str, ResultRecord]:
        """See `Backend.wait_many`.  Those returned are gone afterwards."""
        return await wait_each(self.wait, task_ids, count)

    async def get_active_workers(self) -> list[WorkerInfo]:
        """See `Backend.get_active_workers`."""
        return await workers_of(self._broker)

    async def aclose(self) -> None:
        """See `Backend.aclose`.  What was not read is lost."""
        self._ended.set()
        if self._line is not None and self._run is trio.lowlevel.current_trio_token():
            try:
                with trio.move_on_after(self._config.connect_timeout):
                    await self._line.call(amqp_methods.delete(self._queue))
            except BrokerError as error:
                log.info("%s stays until it expires: %s", self._queue, error)
            self._line.close()
        self._line = self._channel = None
        await trio.lowlevel.checkpoint()

    # -- listening

    async def _listen(self) -> None:
        """See that what comes for us is heard, in this run."""
        run = trio.lowlevel.current_trio_token()
        if self._run is not run:
            self._run, self._line, self._channel, self._turn = run, None, None, trio.Lock()
        if self._channel is not None and self._channel.error is None:
            return
        async with self._turn:
            if self._channel is not None and self._channel.error is None:
                return
            if self._line is None:
                self._line = Line(self._route, self._config, "chicory replies")
                self._ended = trio.Event()
                trio.lowlevel.spawn_system_task(self._look_after, self._ended, name="chicory rabbitmq replies")
            channel = await self._line.channel()
            channel.delivered = partial(self._deliver, channel)
            queue = amqp_methods.queue(
                self._queue, {"x-queue-type": "classic", "x-expires": self._ttl * 1000}, durable=True
            )
            consume = amqp_methods.consume(self._queue, self._queue)
            await channel.answers([channel.ask(queue), channel.ask(consume)], timeout=self._config.connect_timeout)
            self._channel = channel

    async def _look_after(self, ended: trio.Event) -> None:
        """Listen again whenever the line breaks, for as long as anybody may wait."""
        pace, failures = Pace.of(self._config), 0
        while not ended.is_set():
            if self._channel is not None:
                await self._channel.over.wait()
            if not ended.is_set():
                try:
                    await self._listen()
                    failures = 0
                except BrokerError as error:
                    failures += 1
                    log.info("cannot listen for results (%s); trying on", error)
                    await trio.sleep(pace.wait(failures, random.random()))

    def _deliver(self, channel: Channel, delivered: Delivered) -> None:
        content = delivered.content
        task_id = content.properties.message_id or ""
        awaited = self._awaited.get(task_id)
        if awaited is not None and not awaited.record.state.finished:
            try:
                awaited.record = unpack_record(content.body)
            except PayloadError as error:
                log.warning("what came as the result of task %s is none (%s)", task_id, error)
            if awaited.record.state.finished:
                self._finished.append((trio.current_time() + self._ttl, task_id))
                awaited.changed.set()
        channel.ack(delivered.tag)

    def _take(self, task_id: str) -> None:
        self._awaited.pop(task_id, None)

    def _forget_old(self) -> None:
        now = trio.current_time()
        while self._finished and self._finished[0][0] <= now:
            self._take(self._finished.popleft()[1])
