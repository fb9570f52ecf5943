"""A register: one message in a queue of its own, which one at a time reads and replaces.

RabbitMQ has no value that could be compared and set.  But whoever's turn it is has all that is in a queue.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from chicory.brokers.rabbitmq.line import Line
from chicory.brokers.rabbitmq.publisher import Flight
from chicory.brokers.rabbitmq.topology import Queue
from chicory.brokers.rabbitmq.turn import Turn, taken
from chicory.config import RabbitMQBrokerConfig
from chicory.errors import BrokerUnavailable
from chicory.ids import new_id
from chicory.links.amqp_frames import Delivered, Outgoing
from chicory.links.amqp_port import Fate

# How often it was replaced.
_VERSION = "chicory-version"


class Register:
    """The register in *queue*, reached on *line*, which is its own."""

    def __init__(self, line: Line, config: RabbitMQBrokerConfig, queue: Queue) -> None:
        self.line = line
        self._config = config
        self._queue = queue
        self._turn = trio.Lock()

    @asynccontextmanager
    async def taken(self) -> AsyncGenerator["Page"]:
        """What is in it, which nobody else reads before this ends.  Raises as `turn.taken`."""
        async with self._turn, taken(self.line, self._config, self._queue) as turn:
            yield Page(turn, self._queue, persistent=self._config.durable)


class Page:
    """What is in the register, in the hands of the one who has it.  body: None when there is nothing yet.

    beside: what others have put there, which goes when the register is written.
    """

    def __init__(self, turn: Turn, queue: Queue, *, persistent: bool) -> None:
        self.body: bytes | None = None
        self._turn = turn
        self._queue = queue
        self._persistent = persistent
        self._version = 0
        self._old: list[Delivered] = []
        self._others: list[Delivered] = []
        for delivered in turn.found:
            self._take(delivered)

    @property
    def beside(self) -> list[bytes]:
        return [delivered.content.body for delivered in self._others]

    async def write(self, body: bytes) -> None:
        """Have *body* in the register instead; raises BrokerUnavailable when nobody knows whether it is."""
        headers = {_VERSION: self._version + 1}
        # Confirmed before the old one is acknowledged: a crash in between leaves two, the other order none.
        new = Outgoing("", self._queue.name, new_id(), body, headers, None, self._persistent)
        if (await self.publish(new)).fate is not Fate.TAKEN:
            raise BrokerUnavailable(f"{self._queue.name}: RabbitMQ does not say that it has the new one")
        for delivered in (*self._old, *self._others):
            self._turn.remove(delivered)

    async def publish(self, outgoing: Outgoing) -> Flight:
        """See `Turn.publish`."""
        return await self._turn.publish(outgoing)

    def _take(self, delivered: Delivered) -> None:
        version = delivered.content.headers.get(_VERSION)
        if not isinstance(version, int):
            self._others.append(delivered)
            return
        self._old.append(delivered)
        # Two are there where the acknowledgement of the older one was lost.
        if version > self._version:
            self._version, self.body = version, delivered.content.body
