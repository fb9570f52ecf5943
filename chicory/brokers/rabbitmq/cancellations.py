"""Which tasks somebody has cancelled: a list in a queue that everybody reads and nobody empties, and news of it.

Who cancels a task puts it on the list first, and only then says so to those who listen; who begins to work listens
first, and reads the list only then.  So whichever way the two meet, nobody misses a task.
"""

import logging
import random
from collections.abc import Collection, Sequence

import trio

from chicory.brokers.base import Settlement
from chicory.brokers.rabbitmq.line import Line
from chicory.brokers.rabbitmq.mail import Parcel
from chicory.brokers.rabbitmq.publisher import Publisher
from chicory.brokers.rabbitmq.topology import Lists
from chicory.brokers.rabbitmq.turn import taken
from chicory.cancelled import as_cancelled
from chicory.clock import unix_now
from chicory.config import RabbitMQBrokerConfig
from chicory.errors import BrokerError, BrokerUnavailable
from chicory.ids import new_id
from chicory.links import amqp_methods
from chicory.links.amqp_frames import Content, Delivered, Outgoing
from chicory.links.amqp_port import Channel, Fate
from chicory.outcome import Dead, RetryIn

log = logging.getLogger("chicory.rabbitmq")

# Seconds a task is noted at most.
_KEPT = 366 * 24 * 3600.0
# Seconds between two attempts to listen.
_PAUSE = 1.0
# So many settled tasks are on the list at least, and as many as are not, before it is worth to be tidied up.
_LITTER = 256


class CancelList:
    """The list, for all who use one broker; *line* is for turns alone."""

    def __init__(self, publisher: Publisher, line: Line, lists: Lists, config: RabbitMQBrokerConfig) -> None:
        self._publisher = publisher
        self._line = line
        self._lists = lists
        self._config = config

    async def add(self, task_id: str) -> None:
        """Note *task_id*, and say so to all who work.  Raises BrokerUnavailable; repeating it is safe."""
        await self._note([task_id], unix_now() + _KEPT)

    async def settle(self, task_ids: Collection[str]) -> None:
        """Note that these are over, and say so.  Raises BrokerUnavailable; repeating it is safe."""
        await self._note(task_ids, 0.0)

    async def read(self) -> set[str]:
        """Those that are not settled; what is over is taken off the list by the way."""
        now = unix_now()
        noted: dict[str, list[Delivered]] = {}
        async with taken(self._line, self._config, self._lists.cancelled) as turn:
            for delivered in turn.found:
                task_id, until = _said(delivered.content)
                noted.setdefault(task_id, []).append(delivered)
                if until <= now:
                    for one in noted.pop(task_id):
                        turn.remove(one)
        return set(noted)

    async def _note(self, task_ids: Collection[str], until: float) -> None:
        noted = [self._outgoing("", self._lists.cancelled.name, task_id, until) for task_id in task_ids]
        await self._publisher.move([Parcel(self._lists, one) for one in noted])
        said = [self._outgoing(self._lists.news, "", task_id, until) for task_id in task_ids]
        # On the channel of what is delayed: a missing exchange ends it.
        await self._say([Parcel(self._lists, one, level=0) for one in said])

    async def _say(self, parcels: Sequence[Parcel]) -> None:
        # Twice: the first finds out where somebody has deleted the exchange.
        for _ in range(2):
            fates = await self._publisher.land(await self._publisher.launch(parcels))
            # What comes back nobody listens to.
            parcels = [one for one, fate in zip(parcels, fates, strict=True) if fate not in (Fate.TAKEN, Fate.RETURNED)]
            if not parcels:
                return
        raise BrokerUnavailable(self._publisher.trouble)

    def _outgoing(self, exchange: str, key: str, task_id: str, until: float) -> Outgoing:
        body = f"{until:.0f} {task_id}".encode()
        return Outgoing(exchange, key, new_id(), body, persistent=self._config.durable)


class Cancellations:
    """As one consumer knows them, whose *line* it listens on.  ids: those that are known, always the same set."""

    def __init__(self, line: Line, noted: CancelList, lists: Lists, *, timeout: float) -> None:
        self.ids: set[str] = set()
        self._line = line
        self._noted = noted
        self._lists = lists
        self._timeout = timeout
        self._channel: Channel | None = None
        # The queue on which it listens: its connection's own, and gone with it.
        self._queue = f"{lists.news}.{new_id()}"
        self._declared = False
        # What was heard and not told yet.
        self._news: set[str] = set()
        self._arrived = trio.Event()
        # What was settled here, and others were not told; what was settled anywhere since the list was last read.
        self._settled: set[str] = set()
        self._over: set[str] = set()
        self._litter = 0

    @property
    def queue(self) -> str:
        """The queue on which it listens, which is there for as long as the connection stands; "" before it is."""
        return self._queue if self._declared else ""

    async def begin(self) -> None:
        """Know what was cancelled before, unless that cannot be read now: the list holds up nobody's work."""
        try:
            with trio.fail_after(self._timeout):
                await self._listen()
        except (BrokerError, trio.TooSlowError) as error:
            log.warning("cannot tell yet which tasks are cancelled (%s); trying on", str(error) or "no answer")

    async def heard(self) -> Collection[str]:
        """See `CancellingConsumer.heard`."""
        while True:
            if self._channel is None or self._channel.error is not None:
                if self._line.connection is None or self._line.connection.closed:
                    # And with it the lease.
                    await trio.sleep_forever()
                try:
                    await self._listen()
                except BrokerError as error:
                    log.info("cannot hear of cancelled tasks (%s); trying on", error)
                    await trio.sleep(_PAUSE * (0.5 + random.random()))
            elif self._news:
                news, self._news = self._news, set()
                return news
            else:
                self._arrived = trio.Event()
                await self._arrived.wait()

    async def judged(self, settlements: Sequence[Settlement], now: float) -> Sequence[Settlement]:
        """*settlements* as those of cancelled tasks are to be carried out.

        Only before a retry or a dead letter, which would outlive the task, is anything waited for; of what is over with
        its end, what has been heard is enough.
        """
        if any(isinstance(one.outcome, RetryIn | Dead) for one in settlements):
            await self._catch_up()
        return as_cancelled(settlements, self.ids, now)

    def forget(self, task_ids: Collection[str]) -> None:
        """These are over."""
        self._settled |= self.ids.intersection(task_ids)
        self.ids.difference_update(task_ids)

    async def tidy(self) -> None:
        """Have what is over taken off the list.  Raises BrokerUnavailable."""
        if not self._settled:
            return
        settled = tuple(self._settled)
        await self._noted.settle(settled)
        self._settled.difference_update(settled)
        self._litter += len(settled)
        if self._litter >= max(_LITTER, len(self.ids)):
            self._litter = 0
            await self._noted.read()

    # -- listening

    async def _listen(self) -> None:
        """Listen, and then know what is on the list."""
        self._channel = None
        await self._line.ensure(self._lists, 0)
        channel = await self._line.channel()
        channel.delivered = lambda delivered: self._hear(channel, delivered)
        # The queue was deleted: what was said since is on the list.
        channel.cancelled = lambda _: channel.close()
        channel.ended = lambda _: self._end(channel)
        methods = (
            amqp_methods.queue(self._queue, {"x-queue-type": "classic"}, durable=False, exclusive=True),
            amqp_methods.bind_queue(self._queue, self._lists.news, ""),
            amqp_methods.inspect(self._lists.cancelled.name),
            # Last, for its queue answers it, and does not keep to the order.
            amqp_methods.consume(self._queue, self._queue),
        )
        try:
            *_, found, _ = await channel.answers([channel.ask(method) for method in methods], timeout=self._timeout)
            self._declared = True
            # Where nothing is on it and nobody reads it, it need not be read.
            if found.message_count or found.consumer_count:
                self._over.clear()
                noted = await self._noted.read() - self._over - self._settled
                self._news |= noted - self.ids
                self.ids |= noted
        except BaseException:
            channel.close()
            raise
        self._channel = channel

    async def _catch_up(self) -> None:
        """Return when all has come that was said by now."""
        channel = self._channel
        if channel is None or channel.error is not None:
            return
        # When the queue has answered, its channel has what it sent before; and that sends in order.
        for method in (amqp_methods.inspect(self._queue), amqp_methods.limit(0, shared=False)):
            await channel.call(method, timeout=self._timeout)

    def _end(self, channel: Channel) -> None:
        # What is still on its way is put back.
        channel.delivered = lambda _: None
        self._arrived.set()

    def _hear(self, channel: Channel, delivered: Delivered) -> None:
        task_id, until = _said(delivered.content)
        channel.ack(delivered.tag)
        if until:
            self.ids.add(task_id)
            self._news.add(task_id)
            self._arrived.set()
        else:
            self._over.add(task_id)
            self.ids.discard(task_id)
            self._news.discard(task_id)


def _said(content: Content) -> tuple[str, float]:
    """A task, and the unix second until which it is noted; 0 when it has been settled."""
    until, _, task_id = content.body.decode(errors="replace").partition(" ")
    return task_id, int(until) if until.isdecimal() else 0
