"""One AMQP channel of aio-pika's, with a task in its connection's loop that carries out what callers ask for.

That task does one thing after the other, which is what keeps acknowledgements and calls in order; and it belongs to no
caller, for aiormq closes a channel when a call on it is cancelled.  Messages are published in tasks of their own.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, cast

import msgspec
import trio
from aiormq.abc import AbstractConnection, DeliveredMessage
from aiormq.channel import Channel as TheirChannel
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelClosed,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
    DeliveryError,
    PublishError,
)
from pamqp import commands

from chicory.errors import BrokerError, BrokerUnavailable, PayloadError
from chicory.links.amqp_calls import BaseChannel, Line
from chicory.links.amqp_frames import Delivered, Outgoing, publish_frames
from chicory.links.amqp_login import reason
from chicory.links.amqp_methods import Request
from chicory.links.amqp_port import (
    ACCESS_REFUSED,
    NOT_FOUND,
    PRECONDITION_FAILED,
    RESOURCE_LOCKED,
    Answer,
    Batch,
    Fate,
    Got,
    channel_error,
)

log = logging.getLogger("chicory.rabbitmq")

_CODES: dict[type[BaseException], int] = {
    ChannelAccessRefused: ACCESS_REFUSED,
    ChannelNotFoundEntity: NOT_FOUND,
    ChannelLockedResource: RESOURCE_LOCKED,
    ChannelPreconditionFailed: PRECONDITION_FAILED,
}
_PERSISTENT, _TRANSIENT = 2, 1


class ReadContent(msgspec.Struct, frozen=True):
    """See `amqp_frames.Content`."""

    body: bytes
    properties: commands.Basic.Properties

    @property
    def headers(self) -> dict[str, Any]:
        """See `Content.headers`."""
        return dict(self.properties.headers or {})


class Channel(BaseChannel):
    """See `amqp_port.Channel`.  *gone* is set when the server, too, knows that it is over."""

    def __init__(self, line: Line, number: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(line, number)
        self.gone = trio.Event()
        self._loop = loop
        self._theirs: TheirChannel | None = None
        # What is to be done, in order; None: to close.
        self._work: asyncio.Queue[Callable[[], Awaitable[None]] | None] = asyncio.Queue()
        self._asked = 0
        # A queue that was found empty, and the number of what had been asked by then.
        self._empty = "", 0
        self._batches: set[Batch] = set()
        # By id, what is published and has no fate yet.
        self._flying: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, connection: AbstractConnection) -> Answer:
        """Have it opened."""
        answer = self._expect()
        self._start(partial(self._live, connection))
        return answer

    def ask(self, method: Request) -> Answer:
        """See `amqp_port.Channel.ask`."""
        self._check()
        answer = self._expect()
        self._asked += 1
        self._work.put_nowait(partial(self._perform, method, self._asked))
        return answer

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        """See `amqp_port.Channel.ack`."""
        self._check()
        self._work.put_nowait(partial(self._channel.basic_ack, tag, multiple=multiple, wait=False))

    # -- publishing

    def publish(self, messages: Sequence[Outgoing]) -> Batch:
        """See `amqp_port.Channel.publish`."""
        self._check()
        try:
            for message in messages:
                publish_frames(msgspec.structs.replace(message, body=b""), self.number, self._line.frame_max)
        except ValueError as error:
            raise PayloadError(f"the message does not fit: {error}") from error
        batch = Batch(messages)
        if messages:
            self._batches.add(batch)
            self._work.put_nowait(partial(self._launch, batch))
        return batch

    async def _launch(self, batch: Batch) -> None:
        for index in range(len(batch.messages)):
            self._start(partial(self._publish, batch, index))
        # Then they wait in aiormq's own line, before whatever is asked for next.
        await asyncio.sleep(0)

    async def _publish(self, batch: Batch, index: int) -> None:
        message = batch.messages[index]
        # aiormq knows what comes back by its id alone, so of one id there is one in flight.
        while (other := self._flying.get(message.id)) is not None:
            await other.wait()
        landed = asyncio.Event()
        if message.id:
            self._flying[message.id] = landed
        try:
            fate = await self._fate(message)
        finally:
            self._flying.pop(message.id, None)
            landed.set()
        if self.error is None:
            batch.settle(index, fate)
            if not batch.left:
                self._batches.discard(batch)

    async def _fate(self, message: Outgoing) -> Fate:
        properties = commands.Basic.Properties(
            content_type="application/json",
            headers=dict(message.headers) if message.headers else None,
            delivery_mode=_PERSISTENT if message.persistent else _TRANSIENT,
            priority=message.priority,
            message_id=message.id or None,
        )
        try:
            await self._channel.basic_publish(
                message.body,
                exchange=message.exchange,
                routing_key=message.key,
                properties=properties,
                mandatory=True,
                wait=False,
            )
        except PublishError:
            return Fate.RETURNED
        except DeliveryError:
            return Fate.REJECTED
        return Fate.TAKEN

    # -- in the loop

    def _start(self, work: Callable[[], Awaitable[None]]) -> None:
        task = self._loop.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:
            # Where the channel is closed, `_closed` knows better why.
            if self._theirs is None or not self._theirs.is_closed:
                self.end(BrokerUnavailable(f"aio-pika failed ({reason(error)})"))
                self._work.put_nowait(None)

    async def _live(self, connection: AbstractConnection) -> None:
        try:
            # Not by aio-pika's own layer, which keeps two futures of each channel for as long as the connection lives.
            opened = await connection.channel(self.number, publisher_confirms=True, on_return_raises=True)
            self._theirs = channel = cast("TheirChannel", opened)
            cast("asyncio.Future[Any]", channel.closing).add_done_callback(self._closed)
            channel.on_consumer_cancel_callbacks.add(self._bereft)
            self._give(None)
            while (work := await self._work.get()) is not None:
                await work()
            await channel.close()
        finally:
            self._line.forget(self.number)
            self.gone.set()

    @property
    def _channel(self) -> TheirChannel:
        assert self._theirs is not None
        return self._theirs

    async def _perform(self, method: Request, number: int) -> None:
        if isinstance(method, commands.Basic.Get):
            self._give(await self._get(method.queue, number))
            return
        self._empty = "", 0
        match method:
            case commands.Basic.Consume(queue=queue, consumer_tag=tag):
                self._give(await self._channel.basic_consume(queue, self._deliver, consumer_tag=tag))
            case _:
                self._give(await self._channel.rpc(method))

    async def _get(self, queue: str, number: int) -> Got | None:
        # Each takes a round trip here; who asked before the queue was found empty may well be told so, too.
        empty, asked = self._empty
        if empty == queue and number <= asked:
            return None
        got = await self._channel.basic_get(queue)
        match got.delivery:
            case commands.Basic.GetOk(delivery_tag=int(tag)):
                return Got(tag, _content(got))
            case _:
                self._empty = queue, self._asked
                return None

    async def _deliver(self, message: DeliveredMessage) -> None:
        match message.delivery:
            case commands.Basic.Deliver(consumer_tag=str(consumer), delivery_tag=int(tag)) as deliver:
                if self.error is None:
                    self._hand_out(Delivered(consumer, tag, bool(deliver.redelivered), _content(message)))
            case _:
                pass

    def _hand_out(self, delivered: Delivered) -> None:
        try:
            self.delivered(delivered)
        except BrokerError as error:
            self._line.fail(error)
        except Exception as error:
            # aiormq would go on without it.
            log.exception("a delivery was not taken")
            self._line.fail(BrokerUnavailable(f"a delivery was not taken ({reason(error)})"))

    def _bereft(self, cancel: commands.Basic.Cancel) -> None:
        self.cancelled(cancel.consumer_tag or "")

    def _closed(self, closing: "asyncio.Future[Any]") -> None:
        """It is over in aiormq."""
        error = None if closing.cancelled() else closing.exception()
        self.end(_error(error))
        self._work.put_nowait(None)

    # -- how it ends

    def _say_goodbye(self) -> None:
        self._work.put_nowait(None)

    def _abandon(self) -> set[Batch]:
        batches, self._batches = self._batches, set()
        return batches


def _content(message: DeliveredMessage) -> ReadContent:
    return ReadContent(message.body, message.header.properties)


def _error(error: BaseException | None) -> BrokerError:
    """What it means for us that aiormq closed a channel because of *error*."""
    match error:
        case ChannelClosed(args=(int(code), text)):
            return channel_error(code, str(text))
        case ChannelClosed(args=(text,)) if type(error) in _CODES:
            return channel_error(_CODES[type(error)], str(text))
        case None:
            return BrokerUnavailable("the channel is closed")
        case _:
            return BrokerUnavailable(f"the connection was lost ({reason(error)})")
