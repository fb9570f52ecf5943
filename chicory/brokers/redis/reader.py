"""Reading messages from Redis streams, so that none that the server has handed out is ever left lying.

What is read belongs to this worker from the moment the server sends it.  So a read that is cancelled is ended at the
server and its reply taken; and a connection that broke is followed by the question what was sent into the void.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import trio

from chicory.brokers.base import Delivery
from chicory.brokers.redis.cancellations import Cancellations
from chicory.brokers.redis.keys import Keys
from chicory.brokers.redis.line import Line
from chicory.brokers.redis.reading import Receipt, Source, deliveries, delivery, order
from chicory.brokers.redis.scripts import script
from chicory.errors import BrokerError, BrokerUnavailable
from chicory.links.redis import Connection, ServerError
from chicory.links.redis_pool import Pool

log = logging.getLogger("chicory.redis")

MOST = 256
# A blocked read that says nothing for this long after its own limit is a dead line.
_BLOCK_MARGIN = 10.0
# How long an interrupted read may take to hand over what it was about to deliver.
_UNBLOCK = 2.0


class Reader:
    """Reads for one consumer, on a connection of its own; *line* carries what must not wait for a read.

    owned: what the consumer holds already.  restore: makes the groups again when the server has lost them.
    cancellations: kept up to date with what is read.
    """

    def __init__(
        self,
        pool: Pool,
        line: Line,
        queues: Sequence[Keys],
        *,
        name: str,
        group: str,
        block_ms: int,
        timeout: float,
        owned: Collection[Receipt],
        restore: Callable[[], Awaitable[None]],
        cancellations: Cancellations,
    ) -> None:
        self._pool = pool
        self._line = line
        self._name = name
        self._group = group
        self._block_ms = block_ms
        self._timeout = timeout
        self._owned = owned
        self._restore = restore
        self._cancellations = cancellations
        self._by_queue = [
            [Source(keys.stream(level), keys.queue, level) for level in reversed(range(keys.levels))] for keys in queues
        ]
        self.sources = {source.stream.encode(): source for sources in self._by_queue for source in sources}
        # Read from the server, and not yet received by anybody.
        self.stash: list[Delivery] = []
        # How many reads have come back.
        self.fetches = 0
        self._connection: Connection | None = None

    async def ready(self) -> None:
        """Connect.  After a broken connection, first see to what it was about to deliver."""
        if self._connection is None or self._connection.closed:
            broken = self._connection
            fresh = await self._pool.open()
            if broken is not None:
                try:
                    await self._take_over(broken)
                except BaseException:
                    fresh.close()
                    raise
            self._connection = fresh
            self._cancellations.stale = True

    async def read(self, limit: int) -> list[Delivery]:
        """At most *limit* deliveries; none when nothing came for a while."""
        cancellations = self._cancellations
        if not self.stash:
            found = await self._read_some(limit)
            if not cancellations.stale:
                return found
            # Nobody may lose it while the list is read.
            self.stash = found
        if cancellations.stale:
            await cancellations.load()
        await trio.lowlevel.checkpoint_if_cancelled()
        found, self.stash = self.stash[:limit], self.stash[limit:]
        return found

    async def _read_some(self, limit: int) -> list[Delivery]:
        assert self._connection is not None, "read() comes after ready()"
        try:
            found = await self._read(self._connection, min(limit, MOST))
        except ServerError as error:
            if error.code != "NOGROUP":
                raise
            log.error("the broker has lost its state (%s); the consumer group is made again", error)
            await self._restore()
            found = []
        self.fetches += 1
        return found

    async def _read(self, connection: Connection, limit: int) -> list[Delivery]:
        if len(self.sources) == 1:
            (stream,) = self.sources
            reader = ("GROUP", self._group, self._name, "COUNT", limit, "BLOCK", self._block_ms)
            command = ("XREADGROUP", *reader, "STREAMS", stream, ">")
            return deliveries(self.sources, await self._converse(connection, command, ours=True))
        # XREADGROUP counts per stream and cannot block inside a script: take what is there in one step, else wait for
        # any of the streams to grow, and take again.
        receive = script("receive")
        streams = [source.stream for source in order(self._by_queue, self.fetches)]
        try:
            words = receive.words(streams, [self._group, self._name, limit])
            found, ends = await self._converse(connection, words, ours=True)
        except ServerError as error:
            if error.code != "NOSCRIPT":
                raise
            await receive.load(connection, timeout=self._timeout)
            return []
        if not found:
            await self._converse(connection, ("XREAD", "BLOCK", self._block_ms, "STREAMS", *streams, *ends))
        return deliveries(self.sources, found)

    async def _converse(self, connection: Connection, command: tuple[Any, ...], *, ours: bool = False) -> Any:
        """The reply to a read, which may block; *ours*: what it returns belongs to us from then on."""
        replies: list[Any] = []
        if ours:
            # Answered after the read is, so it is as young as what was read.
            owed = 2
            await connection.send_many([command, self._cancellations.question])
        else:
            owed = 1
            await connection.send(*command)
        try:
            with trio.move_on_after(self._block_ms / 1000 + _BLOCK_MARGIN):
                await _take(connection, replies, owed)
        except trio.Cancelled:
            with trio.move_on_after(_UNBLOCK, shield=True) as patience:
                if not replies:
                    await self._line.mention(
                        lambda line: line.call("CLIENT", "UNBLOCK", connection.client_id, timeout=self._timeout)
                    )
                await _take(connection, replies, owed)
                if ours and not isinstance(replies[0], BrokerError):
                    self._keep(command, replies[0])
                self._compare(replies)
            if patience.cancelled_caught:
                connection.close()
            raise
        if len(replies) == owed:
            self._compare(replies)
            return _checked(replies[0])
        connection.close()
        raise BrokerUnavailable(f"{connection.address}: no answer to a read")

    def _compare(self, replies: list[Any]) -> None:
        if len(replies) > 1:
            self._cancellations.compare(replies[1])

    def _keep(self, command: tuple[Any, ...], reply: Any) -> None:
        self.stash += deliveries(self.sources, reply if command[0] == "XREADGROUP" else reply[0])

    async def _take_over(self, broken: Connection) -> None:
        # The server may not know yet that the old connection is dead, and would deliver into it.
        await self._line.mention(
            lambda line: line.call("CLIENT", "KILL", "ID", broken.client_id, timeout=self._timeout)
        )
        known = {*self._owned, *(delivery.receipt for delivery in self.stash)}
        self.stash += await self.unknown(known)

    async def unknown(self, known: Collection[Any]) -> list[Delivery]:
        """Deliveries that the server holds for us and that are not among *known*."""
        return await self._line.talk(lambda line: self._unknown(line, known))

    async def _unknown(self, line: Connection, known: Collection[Any]) -> list[Delivery]:
        found: list[Delivery] = []
        for source in self.sources.values():
            start = "-"
            while True:
                command = ("XPENDING", source.stream, self._group, start, "+", MOST, self._name)
                pending: list[list[Any]] = await line.call(*command, timeout=self._timeout)
                for entry, *_ in pending:
                    if Receipt(source.stream, source.level, entry) not in known:
                        body = await line.call("XRANGE", source.stream, entry, entry, timeout=self._timeout)
                        found += [delivery(source, key, fields) for key, fields in body]
                if len(pending) < MOST:
                    break
                start = "(" + pending[-1][0].decode()
        return found

    def close(self) -> None:
        """Close the connection at once."""
        if self._connection is not None:
            self._connection.close()


async def _take(connection: Connection, replies: list[Any], owed: int) -> None:
    while len(replies) < owed:
        replies.append(await connection.receive())


def _checked(reply: Any) -> Any:
    if isinstance(reply, BrokerError):
        raise reply
    return reply
