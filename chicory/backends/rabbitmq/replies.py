"""A queue to which the results of some tasks are sent, and who waits for them.

The queue outlives a broken connection, and goes by itself when nobody has read from it for as long as results are kept.
"""

import logging
import os
import random
from collections import deque
from collections.abc import Collection, Sequence
from functools import partial

import attrs
import trio

from chicory.brokers.rabbitmq.line import Line
from chicory.brokers.rabbitmq.route import Route
from chicory.clock import unix_now
from chicory.config import RabbitMQBrokerConfig
from chicory.errors import BrokerError, PayloadError
from chicory.ids import new_id
from chicory.links import amqp_methods
from chicory.links.amqp_frames import Delivered
from chicory.links.amqp_port import Channel
from chicory.outage import Pace
from chicory.types import ResultRecord, TaskState
from chicory.wire import unpack_record

log = logging.getLogger("chicory.rabbitmq")

_PENDING = ResultRecord(TaskState.PENDING)
_UNKNOWN = ResultRecord(TaskState.UNKNOWN)


@attrs.define(eq=False)
class _Awaited:
    """A task of ours: what is known of it, and who waits."""

    record: ResultRecord = _PENDING
    changed: trio.Event = attrs.field(factory=trio.Event)


class Replies:
    """One queue of results, whoever in this process waits for them.

    It serves several trio runs one after another, each on a connection of its own.
    """

    def __init__(self, route: Route, config: RabbitMQBrokerConfig, ttl: int) -> None:
        self.queue = _new_queue()
        self._route = route
        self._config = config
        self._ttl = ttl
        self._awaited: dict[str, _Awaited] = {}
        # Finished and not read, the oldest first, each with the instant at which it is forgotten.
        self._finished: deque[tuple[float, str]] = deque()
        self.line: Line | None = None
        self._run: trio.lowlevel.TrioToken | None = None
        self._channel: Channel | None = None
        self._turn = trio.Lock()
        self._ended = trio.Event()
        self._pid = os.getpid()

    @property
    def inherited(self) -> bool:
        """Whether the queue is that of the parent of this process."""
        return self._pid != os.getpid()

    async def expect(self, task_ids: Sequence[str]) -> str:
        """Expect the results of these tasks; returns the queue they are to be sent to."""
        self._forget_old()
        await self._listen()
        for task_id in task_ids:
            self._awaited.setdefault(task_id, _Awaited())
        return self.queue

    def forget(self, task_ids: Collection[str]) -> None:
        """Expect these no more."""
        for task_id in task_ids:
            self._awaited.pop(task_id, None)

    def state(self, task_id: str) -> TaskState:
        """How far the task is, as far as is known here; nothing is gone by looking."""
        awaited = self._awaited.get(task_id)
        return TaskState.UNKNOWN if awaited is None else awaited.record.state

    def cancel(self, task_id: str) -> bool:
        """The task is cancelled; False when another end of it is known."""
        awaited = self._awaited.get(task_id)
        if awaited is None:
            return True
        if not awaited.record.state.finished:
            record = ResultRecord(TaskState.CANCELLED, retries=awaited.record.retries, finished_at=unix_now())
            self._learn(task_id, awaited, record)
        return awaited.record.state is TaskState.CANCELLED

    def take(self, task_id: str) -> ResultRecord:
        """What is known of a task; a finished record is given once."""
        awaited = self._awaited.get(task_id)
        if awaited is None:
            return _UNKNOWN
        if awaited.record.state.finished:
            self.forget([task_id])
        return awaited.record

    async def wait(self, task_id: str) -> ResultRecord:
        """How the task ended, which is forgotten then."""
        awaited = self._awaited.get(task_id)
        if awaited is None:
            return _UNKNOWN
        while awaited.record.state.awaited:
            await self._listen()
            await awaited.changed.wait()
        self.forget([task_id])
        return awaited.record

    async def aclose(self) -> None:
        """Delete the queue.  What was not read is lost, and nothing is known of these tasks any more."""
        self._ended.set()
        awaited, self._awaited = self._awaited, {}
        for one in awaited.values():
            one.record = _UNKNOWN
            one.changed.set()
        if self._run is trio.lowlevel.current_trio_token():
            async with self._turn:
                await self._hang_up()
        await trio.lowlevel.checkpoint()

    async def _hang_up(self) -> None:
        # What is expected from now on comes to another queue.
        line, queue = self.line, self.queue
        self.line, self._channel, self.queue = None, None, _new_queue()
        if line is None:
            return
        try:
            with trio.move_on_after(self._config.connect_timeout):
                await line.call(amqp_methods.delete(queue))
        except BrokerError as error:
            log.info("%s stays until it expires: %s", queue, error)
        line.close()

    # -- listening

    async def _listen(self) -> None:
        """See that what comes for us is heard, in this run."""
        run = trio.lowlevel.current_trio_token()
        if self._run is not run:
            self._run, self.line, self._channel, self._turn = run, None, None, trio.Lock()
        if self._channel is not None and self._channel.error is None:
            return
        async with self._turn:
            if self._channel is not None and self._channel.error is None:
                return
            if self.line is None:
                self.line = Line(self._route, self._config, "chicory replies")
                self._ended = trio.Event()
                trio.lowlevel.spawn_system_task(self._look_after, self._ended, name="chicory rabbitmq replies")
            channel = await self.line.channel()
            channel.delivered = partial(self._deliver, channel)
            queue = amqp_methods.queue(
                self.queue, {"x-queue-type": "classic", "x-expires": self._ttl * 1000}, durable=True
            )
            consume = amqp_methods.consume(self.queue, self.queue)
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
                self._learn(task_id, awaited, unpack_record(content.body))
            except PayloadError as error:
                log.warning("what came as the result of task %s is none (%s)", task_id, error)
        channel.ack(delivered.tag)

    def _learn(self, task_id: str, awaited: _Awaited, record: ResultRecord) -> None:
        awaited.record = record
        if record.state.finished:
            self._finished.append((trio.current_time() + self._ttl, task_id))
            awaited.changed.set()

    def _forget_old(self) -> None:
        now = trio.current_time()
        while self._finished and self._finished[0][0] <= now:
            self.forget([self._finished.popleft()[1]])


def _new_queue() -> str:
    return f"chicory.reply.{new_id()}"
