"""The way into RabbitMQ: a connection for publishing alone, for a server that takes nothing must still hear acks.

Nothing is sent twice here: what came back unroutable is in no queue, and what got no answer is unknown, and it is for
the caller to say whether repeating it does harm.
"""

import logging
import random
from collections.abc import Iterable, Sequence

import msgspec
import trio

from chicory.brokers.rabbitmq.mail import Parcel
from chicory.brokers.rabbitmq.topology import Binding, Declaration, Exchange, Names, Queue
from chicory.config import RabbitMQBrokerConfig
from chicory.errors import BrokerBlocked, BrokerError, BrokerRefused, BrokerUnavailable
from chicory.links import amqp_methods
from chicory.links.amqp import Connection, connect
from chicory.links.amqp_address import Address
from chicory.links.amqp_channel import NOT_FOUND, PRECONDITION_FAILED, Batch, Channel, ChannelError, Fate
from chicory.links.amqp_methods import Request

log = logging.getLogger("chicory.rabbitmq")

_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 1.0
_MARK_MS = 7 * 86400 * 1000


class Flight(msgspec.Struct, frozen=True):
    """One message that was sent."""

    batch: Batch
    index: int

    @property
    def fate(self) -> Fate:
        """What became of it."""
        return self.batch.fates[self.index]


class Publisher:
    """Publishes for one app in one trio run."""

    def __init__(self, address: Address, config: RabbitMQBrokerConfig) -> None:
        self._address = address
        self._config = config
        self._connection: Connection | None = None
        # What is delayed goes by a channel of its own: a missing exchange ends the channel, a missing queue does not.
        self._plain: Channel | None = None
        self._delayed: Channel | None = None
        self._declared: dict[str, int] = {}
        self._turn = trio.Lock()

    @property
    def timeout(self) -> float:
        """Seconds that publishing may take."""
        return self._config.publish_timeout

    async def deliver(self, parcels: Sequence[Parcel]) -> list[Fate]:
        """Send *parcels* and return what became of each; a queue that is missing is declared again first."""
        fates = await self.land(await self.launch(parcels))
        if Fate.RETURNED in fates:
            lost = [index for index, fate in enumerate(fates) if fate is Fate.RETURNED]
            self.missing([parcels[index].names for index in lost])
            again = await self.land(await self.launch([parcels[index] for index in lost]))
            for index, fate in zip(lost, again, strict=True):
                fates[index] = fate
        return fates

    async def launch(self, parcels: Sequence[Parcel]) -> list[Flight]:
        """Send *parcels*.  An error, or being cancelled, means that none was sent.

        Raises BrokerUnavailable, BrokerRefused, or BrokerBlocked when the server takes nothing for as long as it may.
        """
        deadline = trio.current_time() + self.timeout
        while True:
            plain, delayed = await self._ready(parcels, deadline)
            connection = self._connection
            if connection is None or connection.closed or plain.error is not None or delayed.error is not None:
                continue
            if not connection.blocked:
                break
            with trio.move_on_at(deadline) as waiting:
                await connection.unblocked.wait()
            if waiting.cancelled_caught:
                raise BrokerBlocked(
                    f"{self._address}: RabbitMQ takes no messages ({connection.blocked}); it goes on by itself"
                )
        now = plain.publish([parcel.outgoing for parcel in parcels if parcel.level < 0])
        later = delayed.publish([parcel.outgoing for parcel in parcels if parcel.level >= 0])
        counts = [0, 0]
        flights: list[Flight] = []
        for parcel in parcels:
            which = parcel.level >= 0
            flights.append(Flight(later if which else now, counts[which]))
            counts[which] += 1
        return flights

    async def land(self, flights: Iterable[Flight]) -> list[Fate]:
        """Wait for the fates of *flights*; without an answer in time they are unknown."""
        flights = list(flights)
        with trio.move_on_after(self.timeout) as waiting:
            for batch in {id(flight.batch): flight.batch for flight in flights}.values():
                if batch.left:
                    await batch.done.wait()
        if waiting.cancelled_caught and self._connection is not None and not self._connection.blocked:
            # It will hardly answer those who come later.
            self._connection.fail(BrokerUnavailable(f"no confirm in {self.timeout:g} s"))
        return [flight.fate for flight in flights]

    @property
    def trouble(self) -> str:
        """Why an answer may be missing."""
        connection = self._connection
        if connection is not None and connection.blocked:
            return f"RabbitMQ takes no messages: {connection.blocked}"
        return "the line broke before RabbitMQ confirmed"

    def missing(self, gone: Iterable[Names]) -> None:
        """Something of these queues is not there any more: it is declared before the next use."""
        for names in gone:
            if self._declared.pop(names.queue, None) is not None:
                log.warning("%s was deleted; declaring it again", names.main)

    async def ensure(self, names: Names, *, again: bool = False) -> None:
        """Declare what belongs to a queue, unless that was done on this connection, or (*again*) even so."""
        await self._open()
        if again:
            self._declared.pop(names.queue, None)
        await self._declare(names, -1)

    async def channel(self) -> Channel:
        """A new channel, the caller's own to close."""
        await self._open()
        assert self._connection is not None
        return await self._connection.channel(timeout=self._config.connect_timeout)

    async def length(self, channel: Channel, queue: str) -> int:
        """How many messages of *queue* no consumer has; it must be there."""
        length: int = (
            await channel.call(amqp_methods.inspect(queue), timeout=self._config.connect_timeout)
        ).message_count
        return length

    async def mark(self, name: str) -> None:
        """Make a mark that others can see; it goes by itself when it was forgotten for a week."""
        arguments = {"x-queue-type": "classic", "x-expires": _MARK_MS}
        await self._once(amqp_methods.queue(name, arguments, durable=True))

    async def marked(self, name: str) -> bool:
        """Whether the mark is there."""
        try:
            await self._once(amqp_methods.inspect(name))
        except ChannelError as error:
            if error.code != NOT_FOUND:
                raise
            return False
        return True

    async def unmark(self, name: str) -> None:
        """Take the mark away; not to be heard does no harm."""
        try:
            await self._once(amqp_methods.delete(name))
        except BrokerError as error:
            log.info("the mark %s stays until it expires: %s", name, error)

    async def _once(self, method: Request) -> None:
        channel = await self.channel()
        try:
            await channel.call(method, timeout=self._config.connect_timeout)
        finally:
            channel.close()

    async def product(self) -> str:
        """Which server answers."""
        await self._open()
        assert self._connection is not None
        return self._connection.product

    async def _ready(self, parcels: Sequence[Parcel], deadline: float) -> tuple[Channel, Channel]:
        """The two channels, open, and what *parcels* need declared; no checkpoint where nothing is to be done."""
        pause = _FIRST_PAUSE
        while True:
            try:
                plain, delayed = await self._open()
                for parcel in parcels:
                    if self._declared.get(parcel.names.queue, -2) < parcel.level:
                        await self._declare(parcel.names, parcel.level)
            except BrokerUnavailable as error:
                if trio.current_time() + pause >= deadline:
                    raise
                if pause == _FIRST_PAUSE:
                    log.warning("%s (trying on for %g s)", error, deadline - trio.current_time())
                await trio.sleep(pause * (0.5 + random.random() / 2))
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                return plain, delayed

    async def _open(self) -> tuple[Channel, Channel]:
        plain, delayed = self._plain, self._delayed
        if plain is not None and plain.error is None and delayed is not None and delayed.error is None:
            return plain, delayed
        async with self._turn:
            if self._connection is None or self._connection.closed:
                self._plain = self._delayed = None
                self._connection = await connect(
                    self._address,
                    timeout=self._config.connect_timeout,
                    heartbeat=self._config.heartbeat,
                    name="chicory publisher",
                )
                self._declared.clear()
            if self._plain is None or self._plain.error is not None:
                self._plain = await self._confirming(self._connection)
            if self._delayed is None or self._delayed.error is not None:
                # Most likely an exchange was deleted.
                self._declared.clear()
                self._delayed = await self._confirming(self._connection)
            return self._plain, self._delayed

    async def _confirming(self, connection: Connection) -> Channel:
        channel = await connection.channel(timeout=self._config.connect_timeout)
        await channel.call(amqp_methods.confirm(), timeout=self._config.connect_timeout)
        return channel

    async def _declare(self, names: Names, level: int) -> None:
        connection = self._connection
        assert connection is not None
        async with self._turn:
            known = self._declared.get(names.queue, -2)
            if known >= level and known > -2:
                return
            channel = await connection.channel(timeout=self._config.connect_timeout)
            declarations = [*(names.basics() if known < -1 else ()), *(names.levels(level) if level >= 0 else ())]
            try:
                asked = [channel.ask(self._method(declaration)) for declaration in declarations]
                await channel.answers(asked, timeout=self._config.connect_timeout)
            except ChannelError as error:
                if error.code != PRECONDITION_FAILED:
                    raise
                raise BrokerRefused(
                    f"{names.main}: it was declared with other settings ({error}); nothing was changed: set"
                    " broker.rabbitmq as it was, or empty and delete that queue first"
                ) from error
            finally:
                channel.close()
            if connection is self._connection:
                self._declared[names.queue] = max(level, known, -1)

    def _method(self, declaration: Declaration) -> Request:
        durable = self._config.durable
        match declaration:
            case Queue(name, arguments):
                return amqp_methods.queue(name, arguments, durable=durable)
            case Exchange(name):
                return amqp_methods.topic_exchange(name, durable=durable)
            case Binding(source, target, pattern, to_exchange=True):
                return amqp_methods.bind_exchange(target, source, pattern)
            case Binding(source, target, pattern):
                return amqp_methods.bind_queue(target, source, pattern)

    def close(self) -> None:
        """Close at once; nobody may be publishing."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
