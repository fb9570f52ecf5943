"""The way into RabbitMQ: a connection for publishing alone, for a server that takes nothing must still hear acks.

Nothing is sent twice here: what came back unroutable is in no queue, and what got no answer is unknown, and it is for
the caller to say whether repeating it does harm.
"""

import logging
import random
import re
from collections.abc import Iterable, Sequence

import msgspec
import trio

from chicory.brokers.rabbitmq.line import Line, taking
from chicory.brokers.rabbitmq.mail import Parcel
from chicory.brokers.rabbitmq.topology import Keyring, Lists, Names
from chicory.config import RabbitMQBrokerConfig
from chicory.errors import BrokerError, BrokerUnavailable, PayloadError
from chicory.links import amqp_methods
from chicory.links.amqp_port import PRECONDITION_FAILED, Batch, Channel, ChannelError, Fate
from chicory.outage import Pace

log = logging.getLogger("chicory.rabbitmq")

_MAX_SIZE = re.compile(r"max size (\d+)")
# Seconds for which the server's word about its largest message is taken: an operator may raise that at any time.
_REMEMBERED = 60.0
_UNLIMITED = float("inf")
REMEDY = "raise max_message_size there, or send where the data is"


class Flight(msgspec.Struct, frozen=True):
    """One message that was sent."""

    batch: Batch
    index: int

    @property
    def fate(self) -> Fate:
        """What became of it."""
        return self.batch.fates[self.index]

    @property
    def oversized(self) -> bool:
        """Whether the server ended the channel over the size of a message, and there was only this one."""
        return len(self.batch.messages) == 1 and _largest(self.batch.error) < _UNLIMITED


class Publisher:
    """Publishes for one app in one trio run, on *line*, which nobody else uses."""

    def __init__(self, line: Line, config: RabbitMQBrokerConfig) -> None:
        self._line = line
        self._config = config
        self._pace = Pace.of(config)
        # What is delayed goes by a channel of its own: a missing exchange ends the channel, a missing queue does not.
        self._plain: Channel | None = None
        self._delayed: Channel | None = None
        self._turn = trio.Lock()
        # What the server said it takes, and until when that holds.
        self._largest = _UNLIMITED
        self._until = 0.0

    @property
    def timeout(self) -> float:
        """Seconds that publishing may take."""
        return self._config.publish_timeout

    async def deliver(self, parcels: Sequence[Parcel]) -> list[Fate]:
        """Send *parcels* and return what became of each; a queue that is missing is declared again first.

        Raises what `launch` does, and PayloadError for a message that the server is known to find too large, or that it
        finds so where it is alone.
        """
        for parcel in parcels:
            if not self.takes(parcel):
                size = len(parcel.outgoing.body)
                raise PayloadError(f"RabbitMQ takes {self._largest} bytes at most, this message has {size}; {REMEDY}")
        flights = await self.launch(parcels)
        fates = await self.land(flights)
        if any(flight.oversized for flight in flights):
            raise PayloadError(f"{flights[0].batch.error}; {REMEDY}")
        if Fate.RETURNED in fates:
            lost = [index for index, fate in enumerate(fates) if fate is Fate.RETURNED]
            self.missing([parcels[index].names for index in lost])
            again = await self.land(await self.launch([parcels[index] for index in lost]))
            for index, fate in zip(lost, again, strict=True):
                fates[index] = fate
        if Fate.REJECTED in fates and self._config.queue_type == "quorum":
            await self._insist(parcels, fates)
        return fates

    async def _insist(self, parcels: Sequence[Parcel], fates: list[Fate]) -> None:
        """Send again what a quorum queue rejected although it is not full, until it has a leader: it did not get that.

        A server may go on rejecting on the channel on which it rejected once, so each attempt has a new one.
        """
        deadline, failures = trio.current_time() + self.timeout, 0
        while True:
            rejected = [index for index, fate in enumerate(fates) if fate is Fate.REJECTED]
            failures += 1
            pause = self._pace.wait(failures, random.random())
            if not rejected or trio.current_time() + pause >= deadline or await self._full(parcels[rejected[0]].names):
                return
            if failures == 1:
                log.warning("%s has no leader (trying on for %g s)", parcels[rejected[0]].names.main, self.timeout)
            self.change_channel()
            await trio.sleep(pause)
            again = await self.land(await self.launch([parcels[index] for index in rejected]))
            for index, fate in zip(rejected, again, strict=True):
                fates[index] = fate

    async def _full(self, names: Names | Lists | Keyring) -> bool:
        """Whether so many messages wait in a queue as may."""
        limit = self._config.queue_max_length
        if limit is None:
            return False
        channel = await self._line.channel()
        try:
            return await self._line.length(channel, names.main) >= limit
        finally:
            channel.close()

    def change_channel(self) -> None:
        """Publish on another channel from now on; what is not confirmed on the present one stays unknown."""
        if self._plain is not None:
            self._plain.close()

    async def move(self, parcels: Sequence[Parcel]) -> None:
        """Send *parcels*, which were with the server before; BrokerUnavailable when one of them has not arrived."""
        try:
            fates = await self.deliver(parcels)
        except PayloadError as error:
            raise BrokerUnavailable(str(error)) from error
        if any(fate is not Fate.TAKEN for fate in fates):
            raise BrokerUnavailable(self.trouble)

    def takes(self, parcel: Parcel) -> bool:
        """Whether the server takes a message of this size, as far as it has said lately."""
        return len(parcel.outgoing.body) <= self._largest or trio.current_time() > self._until

    async def launch(self, parcels: Sequence[Parcel], *, patient: bool = True) -> list[Flight]:
        """Send *parcels*.  An error, or being cancelled, means that none was sent.

        Raises BrokerUnavailable, BrokerRefused, or BrokerBlocked when the server takes nothing for as long as it may,
        or, where the caller is not *patient*, now.
        """
        deadline = trio.current_time() + (self.timeout if patient else 0.0)
        while True:
            plain, delayed = await self._ready(parcels, deadline)
            connection = self._line.connection
            if connection is None or plain.error is not None or delayed.error is not None:
                continue
            if not connection.blocked:
                break
            await taking(connection, deadline)
        now = plain.publish([parcel.outgoing for parcel in parcels if parcel.level < 0])
        later = delayed.publish([parcel.outgoing for parcel in parcels if parcel.level >= 0])
        counts = [0, 0]
        flights: list[Flight] = []
        for parcel in parcels:
            which = parcel.level >= 0
            flights.append(Flight(later if which else now, counts[which]))
            counts[which] += 1
        return flights

    async def land(self, flights: Iterable[Flight], *, within: float | None = None) -> list[Fate]:
        """Wait for the fates of *flights*, at most *within* seconds; without an answer they are unknown."""
        flights = list(flights)
        with trio.move_on_after(self.timeout if within is None else within) as waiting:
            for batch in {id(flight.batch): flight.batch for flight in flights}.values():
                if batch.left:
                    await batch.done.wait()
                    if (largest := _largest(batch.error)) < _UNLIMITED:
                        self._largest, self._until = largest, trio.current_time() + _REMEMBERED
        connection = self._line.connection
        if within is None and waiting.cancelled_caught and connection is not None and not connection.blocked:
            # It will hardly answer those who come later.
            connection.fail(BrokerUnavailable(f"no confirm in {self.timeout:g} s"))
        return [flight.fate for flight in flights]

    @property
    def trouble(self) -> str:
        """Why an answer may be missing."""
        connection = self._line.connection
        if connection is not None and connection.blocked:
            return f"RabbitMQ takes no messages: {connection.blocked}"
        for channel in (self._plain, self._delayed):
            if channel is not None and isinstance(channel.error, ChannelError):
                return str(channel.error)
        return "the line broke before RabbitMQ confirmed"

    def missing(self, gone: Iterable[Names | Lists | Keyring]) -> None:
        """The queues of *gone* are not there any more: they are declared before the next use."""
        for names in {names.queue: names for names in gone}.values():
            log.warning("%s was deleted; declaring it again", names.main)
            self._line.missing(names)

    async def _ready(self, parcels: Sequence[Parcel], deadline: float) -> tuple[Channel, Channel]:
        """The two channels, open, and what *parcels* need declared; no checkpoint where nothing is to be done."""
        failures = 0
        while True:
            try:
                plain, delayed = await self._open()
                for parcel in parcels:
                    if not self._line.declared(parcel.names, parcel.level):
                        await self._line.ensure(parcel.names, parcel.level)
            except BrokerUnavailable as error:
                failures += 1
                pause = self._pace.wait(failures, random.random())
                if trio.current_time() + pause >= deadline:
                    raise
                if failures == 1:
                    log.warning("%s (trying on for %g s)", error, deadline - trio.current_time())
                await trio.sleep(pause)
            else:
                return plain, delayed

    async def _open(self) -> tuple[Channel, Channel]:
        plain, delayed = self._plain, self._delayed
        if plain is not None and plain.error is None and delayed is not None and delayed.error is None:
            return plain, delayed
        async with self._turn:
            if self._plain is None or self._plain.error is not None:
                self._plain = await self._confirming()
            if self._delayed is None or self._delayed.error is not None:
                if self._delayed is not None:
                    self._line.forget()
                self._delayed = await self._confirming()
            return self._plain, self._delayed

    async def _confirming(self) -> Channel:
        channel = await self._line.channel()
        await channel.call(amqp_methods.confirm(), timeout=self._config.connect_timeout)
        return channel

    def close(self) -> None:
        """Close at once; nobody may be publishing."""
        self._line.close()


def _largest(error: BrokerError | None) -> float:
    """The bytes that the server takes at most, where it ended the channel by *error* because of that."""
    too_large = isinstance(error, ChannelError) and error.code == PRECONDITION_FAILED
    said = _MAX_SIZE.search(str(error)) if too_large else None
    return int(said[1]) if said else _UNLIMITED
