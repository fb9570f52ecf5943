"""Turns: one at a time has all that is in a queue.

Of the consumers of a queue RabbitMQ can let one be active, while the others wait for their turn; and when the active
one's channel ends, however that comes, the queue has back what he did not acknowledge, and then, in the same step,
somebody else is active.  So what he finds there is all there is.
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
from chicory.links.amqp_port import PRECONDITION_FAILED, Channel, ChannelError, Connection

# Seconds after which nobody can be waiting any more who left a mark; the clocks of machines may differ a little.
_STALE = 600.0


@asynccontextmanager
async def taken(line: Line, config: RabbitMQBrokerConfig, queue: Queue) -> AsyncGenerator["Turn"]:
    """What is in *queue*, which nobody else reads before this ends; *line* is for turns alone.

    Raises BrokerUnavailable, BrokerRefused, or BrokerBlocked when the server takes nothing for as long as it may.
    """
    deadline = trio.current_time() + config.publish_timeout
    connection = await line.open()
    await taking(connection, deadline)
    turn = Turn(connection, await line.channel(), queue, config)
    try:
        await turn.wait(deadline)
        await turn.read()
        yield turn
    finally:
        turn.close()


class Turn:
    """All that is in a queue, in the hands of the one whose turn it is.  found: but for the marks of those who wait."""

    def __init__(self, connection: Connection, channel: Channel, queue: Queue, config: RabbitMQBrokerConfig) -> None:
        self.connection = connection
        self.found: list[Delivered] = []
        self._channel = channel
        self._queue = queue
        self._config = config
        self._marks: list[str] = []
        self._arriving, self._arrived = trio.open_memory_channel[Delivered](math.inf)
        channel.delivered = self._arriving.send_nowait
        channel.ended = self._end
        channel.cancelled = self._end

    async def wait(self, deadline: float) -> None:
        """Wait until it is our turn: until something is delivered."""
        name = self._queue.name
        durable = declares_durable(self.connection.product, self._config.durable)
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
        """Take what is there: all that comes before a mark which is put behind it, now that it is our turn."""
        last = self._mark()
        await self.publish(last)
        while last.id in self._marks:
            # For each: there may be many.
            with trio.move_on_after(self._config.connect_timeout) as waiting:
                self._take(await self._next())
            if waiting.cancelled_caught:
                name = self._queue.name
                raise BrokerUnavailable(f"{name}: what was put there does not come; does somebody else read it?")

    async def publish(self, outgoing: Outgoing) -> Flight:
        """Send a message by the channel that has the turn, so that it cannot come after the next one has it.

        Raises BrokerBlocked when the server takes nothing: nothing was sent, unless it stopped just now.
        """
        # It says so on the first message that comes after it stopped, which is the mark of whoever waits.
        await taking(self.connection, trio.current_time())
        batch = self._channel.publish([outgoing])
        timeout = self._config.publish_timeout
        with trio.move_on_after(timeout) as waiting:
            await batch.done.wait()
        if waiting.cancelled_caught and batch.left:
            await taking(self.connection, trio.current_time())
            self.connection.fail(BrokerUnavailable(f"no confirm in {timeout:g} s"))
        return Flight(batch, 0)

    def remove(self, delivered: Delivered) -> None:
        """Have something that was found not be there any more."""
        self._channel.ack(delivered.tag)

    def close(self) -> None:
        """Leave it to the next, with all that was not removed."""
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
        if delivered.content.body:
            self.found.append(delivered)
            return
        mark = delivered.content.properties.message_id or ""
        if mark in self._marks:
            self._marks.remove(mark)
            self.remove(delivered)
        elif (born(mark) or 0.0) < unix_now() - _STALE:
            self.remove(delivered)
        # Else it is the mark of somebody who waits, and goes back for him when this ends.
