"""A register: one message in a queue of its own, which one at a time reads and replaces.

RabbitMQ has no value that could be compared and set.  But of the consumers of a queue it can let one be active, while
the others wait for their turn; and when the active one's channel ends, however that comes, the queue has back what he
did not acknowledge, and then, in the same step, somebody else is active.  So whoever is active has the register, and
what he finds there is all there is.
"""

import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from chicory.brokers.rabbitmq.line import Line, other_settings, taking
from chicory.brokers.rabbitmq.publisher import Flight
from chicory.brokers.rabbitmq.topology import Queue
from chicory.brokers.rabbitmq.versions import declares_durable
from chicory.clock import unix_now
from chicory.config import RabbitMQBrokerConfig
from chicory.errors import BrokerUnavailable
from chicory.ids import born, new_id
from chicory.links import amqp_methods
from chicory.links.amqp_frames import Delivered, Outgoing
from chicory.links.amqp_port import PRECONDITION_FAILED, Channel, ChannelError, Connection, Fate

# How often it was replaced.
_VERSION = "chicory-version"
# Seconds after which nobody can be waiting any more who left a mark; the clocks of machines may differ a little.
_STALE = 600.0


class Register:
    """The register in *queue*, reached on *line*, which is its own."""

    def __init__(self, line: Line, config: RabbitMQBrokerConfig, queue: Queue) -> None:
        self.line = line
        self._config = config
        self._queue = queue
        self._turn = trio.Lock()

    @asynccontextmanager
    async def taken(self) -> AsyncGenerator["Page"]:
        """What is in it, which nobody else reads before this ends.

        Raises BrokerUnavailable, BrokerRefused, or BrokerBlocked when the server takes nothing for as long as it may.
        """
        async with self._turn:
            deadline = trio.current_time() + self._config.publish_timeout
            connection = await self.line.open()
            await taking(connection, deadline)
            page = Page(connection, await self.line.channel(), self._queue, self._config)
            try:
                await page.wait(deadline)
                await page.read()
                yield page
            finally:
                page.close()


class Page:
    """What is in the register, in the hands of the one who has it.  body: None when there is nothing yet."""

    def __init__(self, connection: Connection, channel: Channel, queue: Queue, config: RabbitMQBrokerConfig) -> None:
        self.body: bytes | None = None
        self._connection = connection
        self._channel = channel
        self._queue = queue
        self._config = config
        self._version = 0
        self._old: list[Delivered] = []
        self._marks: list[str] = []
        self._arriving, self._arrived = trio.open_memory_channel[Delivered](math.inf)
        channel.delivered = self._arriving.send_nowait
        channel.ended = self._end
        channel.cancelled = self._end

    async def wait(self, deadline: float) -> None:
        """Wait until it is our turn: until something is delivered."""
        name = self._queue.name
        durable = declares_durable(self._connection.product, self._config.durable)
        methods = (
            amqp_methods.confirm(),
            amqp_methods.queue(name, self._queue.arguments, durable=durable),
            amqp_methods.consume(name, name),
        )
        asked = [self._channel.ask(method) for method in methods]
        # So that something is, also where there was nothing.
        self._channel.publish([self._mark()])
        try:
            await self._channel.answers(asked, timeout=self._config.connect_timeout)
        except ChannelError as error:
            if error.code != PRECONDITION_FAILED:
                raise
            raise other_settings(name, error) from error
        with trio.move_on_at(deadline):
            self._take(await self._next())
            return
        raise BrokerUnavailable(f"{name}: somebody else has it and does not give it back")

    async def read(self) -> None:
        """Take what is there: all that comes before a mark which is put behind it, now that only we put anything."""
        last = self._mark()
        await self.publish(last)
        with trio.move_on_after(self._config.connect_timeout):
            while last.id in self._marks:
                self._take(await self._next())
            return
        raise BrokerUnavailable(f"{self._queue.name}: what was put there does not come; does somebody else read it?")

    async def write(self, body: bytes) -> None:
        """Have *body* in the register instead; raises BrokerUnavailable when nobody knows whether it is."""
        headers = {_VERSION: self._version + 1}
        # Confirmed before the old one is acknowledged: a crash in between leaves two, the other order none.
        new = Outgoing("", self._queue.name, new_id(), body, headers, None, self._config.durable)
        if (await self.publish(new)).fate is not Fate.TAKEN:
            raise BrokerUnavailable(f"{self._queue.name}: RabbitMQ does not say that it has the new one")
        for delivered in self._old:
            self._channel.ack(delivered.tag)

    async def publish(self, outgoing: Outgoing) -> Flight:
        """Send a message by the channel that has the register, so that it cannot come after the next one has it.

        Raises BrokerBlocked when the server takes nothing: nothing was sent, unless it stopped just now.
        """
        # It says so on the first message that comes after it stopped, which is the mark of whoever waits.
        await taking(self._connection, trio.current_time())
        batch = self._channel.publish([outgoing])
        timeout = self._config.publish_timeout
        with trio.move_on_after(timeout) as waiting:
            await batch.done.wait()
        if waiting.cancelled_caught and batch.left:
            await taking(self._connection, trio.current_time())
            self._connection.fail(BrokerUnavailable(f"no confirm in {timeout:g} s"))
        return Flight(batch, 0)

    def close(self) -> None:
        """Leave it to the next."""
        self._channel.close()

    def _end(self, _: object) -> None:
        # What is still on its way is put back.
        self._channel.delivered = lambda _: None
        self._arriving.close()

    def _mark(self) -> Outgoing:
        mark = Outgoing("", self._queue.name, new_id(), b"", persistent=False)
        self._marks.append(mark.id)
        return mark

    async def _next(self) -> Delivered:
        try:
            return await self._arrived.receive()
        except trio.EndOfChannel:
            raise self._channel.error or BrokerUnavailable(f"{self._queue.name} was deleted") from None

    def _take(self, delivered: Delivered) -> None:
        version = delivered.content.headers.get(_VERSION)
        mark = delivered.content.properties.message_id or ""
        if isinstance(version, int):
            self._old.append(delivered)
            # Two are there where the acknowledgement of the older one was lost.
            if version > self._version:
                self._version, self.body = version, delivered.content.body
        elif mark in self._marks:
            self._marks.remove(mark)
            self._channel.ack(delivered.tag)
        elif (born(mark) or 0.0) < unix_now() - _STALE:
            self._channel.ack(delivered.tag)
        # Else it is the mark of somebody who waits, and goes back for him when this ends.
