"""The RabbitMQ broker."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol, runtime_checkable

import trio
from msgspec.structs import replace

from chicory.backends.base import Backend
from chicory.brokers.base import health_of
from chicory.brokers.rabbitmq.books import Books
from chicory.brokers.rabbitmq.cancellations import Cancellations
from chicory.brokers.rabbitmq.consumer import RabbitMQConsumer
from chicory.brokers.rabbitmq.deadletters import DeadLetters
from chicory.brokers.rabbitmq.diagnosis import ask, diagnose
from chicory.brokers.rabbitmq.ends import Ends
from chicory.brokers.rabbitmq.line import Line
from chicory.brokers.rabbitmq.mail import Parcel, Sender
from chicory.brokers.rabbitmq.publisher import Publisher
from chicory.brokers.rabbitmq.register import Register
from chicory.brokers.rabbitmq.route import Route
from chicory.brokers.rabbitmq.timetable import RabbitMQTimetable
from chicory.brokers.rabbitmq.topology import LEVELS, Lists, Names
from chicory.clock import unix_now
from chicory.config import RabbitMQBrokerConfig
from chicory.delay import check_delay
from chicory.errors import (
    BrokerError,
    BrokerUnavailable,
    ConfigError,
    PayloadError,
    PublishUnknown,
    QueueFull,
    UsageError,
)
from chicory.links import amqp_methods
from chicory.links.amqp_address import addresses_of
from chicory.links.amqp_paths import connector
from chicory.links.amqp_port import NOT_FOUND, Channel, ChannelError, Fate, Got
from chicory.links.executor import CALLERS, checkpoint
from chicory.links.per_run import PerRun
from chicory.links.trio_thread import closed, on_trio
from chicory.types import DLQMessage, Finding, Health, QueueSizes, TaskMessage, TaskState, Undecodable, WorkerInfo
from chicory.wire import check_queue, unpack

# Seconds a consumer may take to give back what it holds, whatever happens around it.
_FAREWELL = 5.0
_MAX_BATCH = 256


@runtime_checkable
class TakesReplies(Protocol):
    """What the broker has to know of a joined backend."""

    async def reply_to(self, task_ids: Sequence[str]) -> str:
        """Expect the results of these tasks; returns the queue they are to be sent to."""
        ...

    def forget(self, task_ids: Collection[str]) -> None:
        """These were not published after all."""
        ...

    def state(self, task_id: str) -> TaskState:
        """How far the task is, as far as it is known here."""
        ...

    def cancel(self, task_id: str) -> bool:
        """The task is cancelled, if it was expected here; False when its end is another one already."""
        ...


class RabbitMQBroker:
    """See `brokers.base.Broker`.  Nothing connects before it is used.

    most: the count up to which deaths are charged that may be a neighbour's fault: see `outcome.most_shared`.

    Counters, and how many messages are delivered, are of this object alone: RabbitMQ keeps no such books.  Nor does it
    recognise a message, so one that is published again after `PublishUnknown` may be there twice.

    For callers of other libraries it works in the process's own trio thread, which answers the server between calls.
    """

    callers = CALLERS

    def __init__(self, config: RabbitMQBrokerConfig, *, most: int | None = None) -> None:
        _refuse_contradictions(config)
        self.config = config
        timeout, heartbeat = config.connect_timeout, config.heartbeat
        self.route = Route(addresses_of(config), connector(config.data_path), timeout=timeout, heartbeat=heartbeat)
        self._most = most
        self._books = Books()
        self._sender = Sender(config.max_priority, config.durable)
        self._names: dict[str, Names] = {}
        self._replies: TakesReplies | None = None
        self._reopen: Callable[[str], Awaitable[None]] | None = None
        self._lists = Lists(config)
        self._ends = PerRun(lambda _: Ends(self.route, self.config, self._lists))

    def __repr__(self) -> str:
        return f"<RabbitMQBroker {self.route}>"

    def join(self, backend: Backend) -> None:
        """See `Broker.join`.  The backend says where the results of what is published are to be sent."""
        if isinstance(backend, TakesReplies):
            self._replies = backend

    def announce(self, reopen: Callable[[str], Awaitable[None]]) -> None:
        """See `Broker.announce`."""
        self._reopen = reopen

    # -- publishing ---------------------------------------------------------------------------------------------------

    @on_trio
    async def publish(self, message: TaskMessage, queue: str | None = None, *, delay: float | None = None) -> str:
        """See `Broker.publish`."""
        async with self._awaited([message]) as (awaited,):
            (there,) = await self._publish_unique([awaited], [self._parcel(awaited, queue, delay)], delay)
        return there

    @on_trio
    async def publish_many(self, messages: Sequence[TaskMessage], queue: str | None = None) -> Sequence[str]:
        """See `Broker.publish_many`."""
        await trio.lowlevel.checkpoint()
        parcels = [self._parcel(message, queue, None) for message in messages]
        there: list[str] = []
        async with self._awaited(messages) as awaited:
            if self._replies is not None:
                parcels = [self._parcel(message, queue, None) for message in awaited]
            for start in range(0, len(parcels), _MAX_BATCH):
                try:
                    end = start + _MAX_BATCH
                    there += await self._publish_unique(awaited[start:end], parcels[start:end], None)
                except (QueueFull, PublishUnknown) as error:
                    error.published += start
                    raise
                except BrokerError as error:
                    # Perhaps told to others too: whatever they make of it, nothing of this batch was sent.
                    error.published = start
                    raise
        return there

    @asynccontextmanager
    async def _awaited(self, messages: Sequence[TaskMessage]) -> AsyncGenerator[Sequence[TaskMessage]]:
        """The messages, saying where their results are to be sent, if anybody wants them."""
        replies = self._replies
        wanted = [one.id for one in messages if not one.ignore_result and one.reply_to is None]
        if replies is None or not wanted:
            yield messages
            return
        queue = await replies.reply_to(wanted)
        among = set(wanted)
        try:
            yield [replace(one, reply_to=queue) if one.id in among else one for one in messages]
        except PublishUnknown:
            raise
        except (BrokerError, UsageError) as error:
            replies.forget([one.id for one in messages[error.published :]])
            raise

    async def _publish_unique(
        self, messages: Sequence[TaskMessage], parcels: Sequence[Parcel], delay: float | None
    ) -> list[str]:
        """Publish *messages*, as *parcels*, but those whose keys others hold; returns the ids of what is there."""
        if all(message.unique is None for message in messages):
            await self._publish(parcels)
            return [message.id for message in messages]
        names = {parcel.names.queue: self._names_of(parcel.names.queue) for parcel in parcels}
        queues = {parcel.names.queue for message, parcel in zip(messages, parcels, strict=True) if message.unique}
        async with AsyncExitStack() as stack:
            # In one order everywhere, so that nobody waits for somebody who waits for him.
            uniques = self._ends.current().uniques
            keys = {queue: await stack.enter_async_context(uniques.taken(names[queue])) for queue in sorted(queues)}
            there: list[str] = []
            new: list[int] = []
            for index, (message, parcel) in enumerate(zip(messages, parcels, strict=True)):
                held = None if message.unique is None else keys[parcel.names.queue]
                holder = None if held is None else held.claim(message, _wait(message, delay))
                there.append(message.id if holder is None else holder)
                if holder is None:
                    new.append(index)
            sent = [messages[index].id for index in new]
            patience = self.config.publish_timeout + self.config.connect_timeout
            # To the end, for half of it is a message whose key is free.
            with trio.CancelScope(shield=True, deadline=trio.current_time() + patience):
                failed: BrokerError | None = None
                try:
                    if new:
                        await self._publish([parcels[index] for index in new])
                except BrokerError as error:
                    failed, lost = error, new[error.published :]
                    error.published = lost[0] if lost else len(messages)
                    for one in keys.values():
                        one.free([messages[index] for index in lost])
                try:
                    for one in keys.values():
                        await one.write()
                except BrokerError as error:
                    raise failed or PublishUnknown(sent, f"their keys could not be noted: {error}") from error
                if failed is not None:
                    raise failed
                self._expect_no({message.id for message in messages}.difference(there))
                return there
        raise PublishUnknown(sent, f"no confirm in {patience:g} s")

    def _expect_no(self, task_ids: Collection[str]) -> None:
        """No results of these."""
        if self._replies is not None and task_ids:
            self._replies.forget(task_ids)

    async def _publish(self, parcels: Sequence[Parcel]) -> None:
        publisher = self._current_publisher()
        fates = await publisher.deliver(parcels)
        for parcel, fate in zip(parcels, fates, strict=True):
            if fate is Fate.TAKEN:
                self._books.note(parcel.names.queue, "published")
        bad = [index for index, fate in enumerate(fates) if fate is not Fate.TAKEN]
        if not bad:
            return
        if all(fates[index] is Fate.REJECTED for index in bad):
            limit, names = self.config.queue_max_length, parcels[bad[0]].names
            if limit is None and self.config.queue_type == "quorum":
                why = "most of its nodes may be down, or a policy limits its length"
                error = BrokerUnavailable(f"{names.main}: RabbitMQ takes no message for it; {why}")
                error.published = bad[0]
                raise error
            raise QueueFull(names.queue, limit or 0, published=bad[0])
        raise PublishUnknown([parcels[index].outgoing.id for index in bad], publisher.trouble, published=bad[0])

    def _parcel(self, message: TaskMessage, queue: str | None, delay: float | None) -> Parcel:
        if queue is not None and queue != message.queue:
            message = replace(message, queue=queue)
        names = self._names_of(message.queue)
        if delay is not None:
            check_delay(delay)
        parcel = self._sender.new(names, message, _wait(message, delay))
        size, most = len(parcel.outgoing.body), self.config.max_message_size
        if size > most:
            raise PayloadError(
                f"the message has {size} bytes, broker.rabbitmq.max_message_size allows {most};"
                " store the data elsewhere and pass where it is"
            )
        return parcel

    def _current_publisher(self) -> Publisher:
        return self._ends.current().publisher

    def _current_desk(self) -> Line:
        return self._ends.current().desk

    def _current_register(self) -> Register:
        return self._ends.current().register

    @property
    def _consumers(self) -> "set[RabbitMQConsumer]":
        return self._ends.current().consumers

    def _names_of(self, queue: str) -> Names:
        names = self._names.get(queue)
        if names is None:
            names = self._names[queue] = Names(self.config, check_queue(queue))
        return names

    # -- working ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def consumer(self, queues: Sequence[str], *, name: str, limit: int) -> AsyncGenerator[RabbitMQConsumer]:
        """See `Broker.consumer`."""
        ends = self._ends.current()
        line = Line(self.route, self.config, f"chicory {name}")
        consumer = RabbitMQConsumer(
            line,
            ends.publisher,
            [self._names_of(queue) for queue in queues],
            name=name,
            limit=limit,
            config=self.config,
            most=self._most,
            books=self._books,
            trim=self._trim,
            cancellations=Cancellations(line, ends.cancelled, self._lists, timeout=self.config.connect_timeout),
            workers=ends.workers,
        )
        try:
            await consumer.join()
            ends.consumers.add(consumer)
            try:
                yield consumer
            finally:
                with trio.move_on_after(_FAREWELL, shield=True):
                    await consumer.leave()
        finally:
            ends.consumers.discard(consumer)
            consumer.close()

    def keeper(self, queues: Sequence[str]) -> None:
        """See `Broker.keeper`.  RabbitMQ itself makes due messages ready, and gives back what a dead worker held."""

    def timetable(self) -> RabbitMQTimetable:
        """See `Broker.timetable`."""
        return RabbitMQTimetable(
            self._current_register,
            lambda message: self._parcel(message, None, None),
            self.config,
            self._books,
            lambda message: self._ends.current().uniques.claimed(self._names_of(message.queue), message),
        )

    # -- dead letters -------------------------------------------------------------------------------------------------

    def _dead(self, queue: str) -> DeadLetters:
        ends = self._ends.current()
        return DeadLetters(
            ends.desk,
            ends.publisher,
            self._names_of(queue),
            sender=self._sender,
            books=self._books,
            turn=ends.letters_turn,
            reopen=self._reopen,
            claimed=ends.uniques.claimed,
        )

    async def _trim(self, queue: str, limit: int) -> None:
        await self._dead(queue).trim(limit)

    @on_trio
    async def get_dlq_messages(self, queue: str = "default", count: int = 100, start: str = "") -> list[DLQMessage]:
        """See `Broker.get_dlq_messages`."""
        return await self._dead(queue).list(count, start)

    @on_trio
    async def replay_from_dlq(self, message_id: str, queue: str = "default", *, reset_retries: bool = True) -> bool:
        """See `Broker.replay_from_dlq`."""
        return await self._dead(queue).replay(message_id, reset_retries=reset_retries)

    @on_trio
    async def delete_from_dlq(self, message_id: str, queue: str = "default") -> bool:
        """See `Broker.delete_from_dlq`."""
        return await self._dead(queue).delete(message_id)

    @on_trio
    async def purge_dlq(self, queue: str = "default") -> int:
        """See `Broker.purge_dlq`."""
        return await self._dead(queue).purge()

    @on_trio
    async def get_dlq_count(self, queue: str = "default") -> int:
        """See `Broker.get_dlq_count`."""
        return await self._dead(queue).count()

    # -- cancelling ---------------------------------------------------------------------------------------------------

    @on_trio
    async def cancel(self, task_id: str) -> bool:
        """See `CancellingBroker.cancel`."""
        replies = self._replies
        if replies is not None and (state := replies.state(task_id)).finished:
            return state is TaskState.CANCELLED
        await self._ends.current().cancelled.add(task_id)
        return replies is None or replies.cancel(task_id)

    # -- looking ------------------------------------------------------------------------------------------------------

    @on_trio
    async def get_queue_sizes(self, queue: str = "default") -> QueueSizes:
        """See `Broker.get_queue_sizes`.  What workers of other processes hold is neither ready nor delivered here."""
        names = self._names_of(queue)
        dead = await self.get_dlq_count(queue)
        delayed = sum((await self._delayed(names)).values())
        desk = self._current_desk()
        async with self._channel() as channel:
            ready = sum([await desk.length(channel, one) for one in names.ready])
        consumers = await self._synced()
        return QueueSizes(
            ready=ready + sum(consumer.waiting(queue) for consumer in consumers),
            delayed=delayed,
            delivered=sum(consumer.delivered(queue) for consumer in consumers),
            dead=dead,
        )

    async def get_queue_size(self, queue: str = "default") -> int:
        """See `Broker.get_queue_size`."""
        return (await self.get_queue_sizes(queue)).ready

    async def get_pending_count(self, queue: str = "default") -> int:
        """See `Broker.get_pending_count`.  Of this object's own workers."""
        return (await self.get_queue_sizes(queue)).delivered

    @on_trio
    async def get_consumer_count(self, queue: str = "default") -> int:
        """See `Broker.get_consumer_count`.  One that was told to fetch nothing does not count."""
        desk, names = self._current_desk(), self._names_of(queue)
        await desk.ensure(names)
        async with self._channel() as channel:
            return await desk.consumers(channel, names.main)

    @on_trio
    async def get_active_workers(self) -> list[WorkerInfo]:
        """See `ListsWorkers.get_active_workers`."""
        return await self._ends.current().workers.read()

    @on_trio
    async def purge_queue(self, queue: str = "default", *, delayed: bool = True) -> int:
        """See `Broker.purge_queue`."""
        names = self._names_of(queue)
        waiting = await self._delayed(names) if delayed else {}
        await self._current_desk().ensure(names)
        uniques = self._ends.current().uniques
        if await uniques.used(names):
            async with uniques.taken(names) as keys:
                gone = [message async for message in self._drained((*waiting, *names.ready))]
                for consumer in await self._synced():
                    gone += [unpack(held.content.body) for held in consumer.purge(queue)]
                keys.free(gone)
                await keys.write()
                purged = len(gone)
        else:
            purged = 0
            async with self._channel() as channel:
                for one in (*waiting, *names.ready):
                    answer = await channel.call(amqp_methods.purge(one), timeout=self.config.connect_timeout)
                    purged += answer.message_count
            purged += sum([len(consumer.purge(queue)) for consumer in await self._synced()])
        self._books.note(queue, "purged", purged)
        return purged

    async def _drained(self, queues: Sequence[str]) -> AsyncGenerator[TaskMessage | Undecodable]:
        """What is in *queues*, which is deleted: where there are keys to be freed, it has to be read."""
        async with self._channel() as channel:
            for queue in queues:
                while True:
                    asked = [channel.ask(amqp_methods.get(queue)) for _ in range(_MAX_BATCH)]
                    answers = await channel.answers(asked, timeout=self.config.connect_timeout)
                    found: list[Got] = [got for got in answers if got is not None]
                    for got in found:
                        yield unpack(got.content.body)
                        channel.ack(got.tag)
                    if len(found) < len(asked):
                        break

    async def _delayed(self, names: Names) -> dict[str, int]:
        """How many messages each level of delay holds, of those that were ever needed: no level without those below."""
        desk = self._current_desk()
        found: dict[str, int] = {}
        for level in range(LEVELS):
            async with self._channel() as channel:
                try:
                    found[names.delayed(level)] = await desk.length(channel, names.delayed(level))
                except ChannelError as error:
                    if error.code != NOT_FOUND:
                        raise
                    break
        return found

    async def _synced(self) -> list[RabbitMQConsumer]:
        """The consumers of this object, once all that was delivered to them has come."""
        consumers = list(self._consumers)
        for consumer in consumers:
            await consumer.renew()
        return consumers

    @asynccontextmanager
    async def _channel(self) -> AsyncGenerator[Channel]:
        channel = await self._current_desk().channel()
        try:
            yield channel
        finally:
            channel.close()

    async def counters(self, queue: str = "default") -> dict[str, int]:
        """See `Broker.counters`.  Of this object alone."""
        await checkpoint()
        return self._books.read(queue)

    async def healthcheck(self) -> Health:
        """See `Broker.healthcheck`."""
        return await health_of(self)

    @on_trio
    async def ping(self) -> str:
        """See `Broker.ping`."""
        return (await self._current_desk().open()).product

    @on_trio
    async def examine(self) -> list[Finding]:
        """See `Broker.examine`."""
        # A connection of its own, since a server that takes nothing holds up whoever publishes on it.
        line = Line(self.route, self.config, "chicory doctor")
        try:
            return diagnose(await ask(line, self.config.connect_timeout), self.config)
        finally:
            line.close()

    async def aclose(self) -> None:
        """See `Broker.aclose`."""
        await closed(self, self._close)

    async def _close(self) -> None:
        if (ends := self._ends.take()) is not None:
            ends.close()
        await trio.lowlevel.checkpoint()


def _wait(message: TaskMessage, delay: float | None) -> float:
    """Seconds until *message* is due, in *delay* seconds where that is said."""
    if delay is not None:
        return delay
    return 0.0 if message.due is None else message.due - unix_now()


def _refuse_contradictions(config: RabbitMQBrokerConfig) -> None:
    if config.queue_type == "quorum" and config.max_priority is not None:
        raise ConfigError("broker.rabbitmq.max_priority: quorum queues have no priorities; leave it out")
    if config.queue_type == "quorum" and not config.durable:
        raise ConfigError("broker.rabbitmq.durable: quorum queues always are; leave it out")
