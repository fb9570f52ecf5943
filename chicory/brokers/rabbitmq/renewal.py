"""Deliveries that are held for longer than RabbitMQ allows.

A server takes back what was not acknowledged within its `consumer_timeout`, half an hour by default, and ends the
channel, so a longer task would run again and again.  Well before that, its message moves into a queue that only its
worker consumes: the copy is delivered to it, and then the original is acknowledged.  Nothing else changes hands.

Should the worker die, its copy has outlived its short time to live, and goes back where it came from.
"""

import trio

from chicory.brokers.rabbitmq.intake import Acks, Held
from chicory.brokers.rabbitmq.line import Line
from chicory.brokers.rabbitmq.mail import RENEWED, Sender
from chicory.brokers.rabbitmq.publisher import Publisher
from chicory.brokers.rabbitmq.topology import Names
from chicory.ids import new_id
from chicory.links import amqp_methods
from chicory.links.amqp_frames import Delivered
from chicory.links.amqp_port import Channel

# Long enough for a copy to be delivered, short enough to wait for where a worker died.
_COPY_MS = 10_000
# A queue that nobody consumes is empty by then.
_UNUSED_MS = 600_000


class Renewal:
    """Renews for one consumer."""

    def __init__(self, line: Line, publisher: Publisher, sender: Sender, timeout: float) -> None:
        self._line = line
        self._publisher = publisher
        self._sender = sender
        self._timeout = timeout
        self._id = new_id()
        self._queues: dict[str, str] = {}
        self._channel: Channel | None = None
        self._acks: Acks | None = None
        self._waiting: dict[str, Held] = {}
        self._arrived = trio.Event()

    async def renew(self, old: list[Held]) -> None:
        """Return when all of *old* are held anew, or were settled meanwhile."""
        tokens = {new_id(): held for held in old}
        parcels = {
            token: self._sender.keep(await self._queue_of(held.names), held.names, held.content, token)
            for token, held in tokens.items()
        }
        # What has become too large for the server since it was sent can only be taken back by it.
        parcels = {token: parcel for token, parcel in parcels.items() if self._publisher.takes(parcel)}
        self._waiting = {token: tokens[token] for token in parcels}
        await self._publisher.move(list(parcels.values()))
        with trio.move_on_after(self._timeout):
            while self._waiting:
                self._arrived = trio.Event()
                await self._arrived.wait()

    async def _queue_of(self, names: Names) -> str:
        if self._channel is None:
            self._channel = await self._line.channel()
            self._channel.delivered = self._deliver
            self._acks = Acks(self._channel)
        queue = self._queues.get(names.queue)
        if queue is None:
            queue = f"chicory.held.{names.queue}.{self._id}"
            arguments = {
                "x-queue-type": "classic",
                "x-message-ttl": _COPY_MS,
                "x-expires": _UNUSED_MS,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": names.back,
            }
            declare = amqp_methods.queue(queue, arguments, durable=True)
            asked = [self._channel.ask(method) for method in (declare, amqp_methods.consume(queue, queue))]
            await self._channel.answers(asked, timeout=self._timeout)
            self._queues[names.queue] = queue
        return queue

    def _deliver(self, delivered: Delivered) -> None:
        assert self._acks is not None
        self._acks.came(delivered.tag)
        held = self._waiting.pop(str(delivered.content.headers.get(RENEWED, "")), None)
        if held is None or held.done:
            self._acks.send([delivered.tag])
        else:
            held.acks.send([held.tag])
            held.acks, held.tag, held.since = self._acks, delivered.tag, trio.current_time()
        self._arrived.set()
