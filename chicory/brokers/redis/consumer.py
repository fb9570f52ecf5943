"""One worker's hold on Redis streams: reading, settling, and the lease that both stand under.

Two connections: one that blocks for messages, and one for everything else, so that settling never waits for a read.
"""

import logging
import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any

import trio
from msgspec.structs import replace

from chicory.brokers.base import Delivery, Settlement
from chicory.brokers.redis.keys import Keys, ResultKeys
from chicory.brokers.redis.line import Line
from chicory.brokers.redis.reading import Receipt, Source, deliveries, delivery, order
from chicory.brokers.redis.scripts import script
from chicory.brokers.redis.settler import Item, Settler
from chicory.brokers.redis.settling import encode
from chicory.errors import BrokerError, BrokerUnavailable, LeaseLost
from chicory.links.redis import Connection, ServerError
from chicory.links.redis_pool import Pool
from chicory.outcome import Release

log = logging.getLogger("chicory.redis")

_MAX = 256
# A blocked read that says nothing for this long after its own limit is a dead line.
_BLOCK_MARGIN = 10.0
# How long an interrupted read may take to hand over what it was about to deliver.
_UNBLOCK = 2.0


class RedisConsumer:
    """See `brokers.base.Consumer`."""

    def __init__(
        self,
        pool: Pool,
        queues: Sequence[Keys],
        *,
        name: str,
        limit: int,
        group: str,
        lease: float,
        block_ms: int,
        timeout: float,
        dlq_max_length: int | None,
        results: ResultKeys | None,
    ) -> None:
        self.name = name
        self.lease = lease
        self._limit = limit
        self._pool = pool
        self._queues = queues
        self._group = group
        self._block_ms = block_ms
        self._timeout = timeout
        self._by_queue = [
            [Source(keys.stream(level), keys.queue, level) for level in reversed(range(keys.levels))] for keys in queues
        ]
        self._sources = {source.stream.encode(): source for sources in self._by_queue for source in sources}
        self._reading: Connection | None = None
        self._line = Line(pool)
        self._settler = Settler(
            self._line,
            queues,
            name=name,
            group=group,
            timeout=timeout,
            dlq_max_length=dlq_max_length,
            results=results,
        )
        # Received and not yet settled; and read from the server but not yet received by anybody.
        self._owned: set[Receipt] = set()
        self._stash: list[Delivery] = []
        self._settled = trio.Event()
        self._fetches = 0
        self._suspects: dict[Receipt, int] = {}
        self._clock_offset = time.time() - time.monotonic()

    # -- joining and leaving

    async def join(self) -> None:
        """Make the groups where they are missing and take out the lease."""
        await self._line.talk(self._ensure_groups)
        if not await self._renew(joining=True):
            raise LeaseLost(f"{self.name}: the lease was refused")

    async def leave(self) -> None:
        """Give back what nobody started, end the lease where nothing is pending, and close."""
        try:
            await self._give_back_unknown()
            for keys in self._queues:
                await self._line.talk(lambda connection, keys=keys: self._end_lease(connection, keys))
        except BrokerError as error:
            log.warning("left without saying goodbye (%s); what is pending is given back when the lease ends", error)
        finally:
            self.close()

    def close(self) -> None:
        """Close both connections at once."""
        self._line.close()
        if self._reading is not None:
            self._reading.close()

    async def _end_lease(self, connection: Connection, keys: Keys) -> None:
        names = [keys.leases, *keys.streams]
        await script("leave").run(connection, names, [self._group, self.name], timeout=self._timeout)

    async def _give_back_unknown(self) -> None:
        held, self._stash = self._stash, []
        known = self._owned.union(delivery.receipt for delivery in held)
        held += await self._line.talk(lambda connection: self._unknown(connection, known))
        if held:
            await self.settle([Settlement(delivery, Release("the worker stopped")) for delivery in held])

    async def _ensure_groups(self, connection: Connection) -> None:
        for source in self._sources.values():
            try:
                # From 0: finished entries are deleted, so whatever a stream holds is still to be done.
                command = ("XGROUP", "CREATE", source.stream, self._group, "0", "MKSTREAM")
                await connection.call(*command, timeout=self._timeout)
            except ServerError as error:
                if error.code != "BUSYGROUP":
                    raise

    # -- reading

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """See `Consumer.receive`.  Raises BrokerUnavailable when the line breaks; calling again reconnects."""
        while True:
            connection = await self._ready_to_read()
            while (room := min(limit, self._limit - len(self._owned), _MAX)) <= 0:
                self._settled = trio.Event()
                await self._settled.wait()
            if self._stash:
                found, self._stash = self._stash[:room], self._stash[room:]
                await trio.lowlevel.checkpoint_if_cancelled()
            else:
                found = await self._read(connection, room)
                self._fetches += 1
            if found:
                self._owned.update([delivery.receipt for delivery in found])
                return found

    async def _ready_to_read(self) -> Connection:
        """The reading connection; a new one first makes sure that nothing read on the old one is left behind."""
        if self._reading is None or self._reading.closed:
            stale = self._reading
            fresh = await self._pool.open()
            if stale is not None:
                try:
                    await self._take_over(stale)
                except BaseException:
                    fresh.close()
                    raise
            self._reading = fresh
        return self._reading

    async def _take_over(self, stale: Connection) -> None:
        # The server may not know yet that the old connection is dead, and would deliver into it.
        await self._line.mention(
            lambda connection: connection.call("CLIENT", "KILL", "ID", stale.client_id, timeout=self._timeout)
        )
        known = self._owned.union(delivery.receipt for delivery in self._stash)
        self._stash += await self._line.talk(lambda connection: self._unknown(connection, known))

    async def _read(self, connection: Connection, limit: int) -> list[Delivery]:
        try:
            if len(self._sources) > 1:
                return await self._read_several(connection, limit)
            (stream,) = self._sources
            reader = ("GROUP", self._group, self.name, "COUNT", limit, "BLOCK", self._block_ms)
            reply = await self._blocking(connection, ("XREADGROUP", *reader, "STREAMS", stream, ">"))
            return deliveries(self._sources, reply)
        except ServerError as error:
            if error.code != "NOGROUP":
                raise
            log.error("the broker has lost its state (%s); the consumer group is made again", error)
            await self._line.talk(self._ensure_groups)
            await self._renew(joining=True)
            return []

    async def _read_several(self, connection: Connection, limit: int) -> list[Delivery]:
        """XREADGROUP counts per stream and cannot block inside a script: take what is there in one step, else wait for
        any of the streams to grow and take again."""
        streams = [source.stream for source in order(self._by_queue, self._fetches)]
        await connection.send(*script("receive").words(streams, [self._group, self.name, limit]))
        reply = await self._owed_deliveries(connection)
        if isinstance(reply, ServerError) and reply.code == "NOSCRIPT":
            await script("receive").load(connection, timeout=self._timeout)
            return []
        found, ends = self._checked(reply)
        if not found:
            command = ("XREAD", "COUNT", 1, "BLOCK", self._block_ms, "STREAMS", *streams, *ends)
            await self._blocking(connection, command)
        return deliveries(self._sources, found)

    async def _owed_deliveries(self, connection: Connection) -> Any:
        """The reply of receive.lua; cancelled, the messages in it are stashed, since they are ours already."""
        try:
            with trio.move_on_after(self._timeout) as patience:
                return await connection.receive()
        except trio.Cancelled:
            with trio.move_on_after(_UNBLOCK, shield=True) as scope:
                reply = await connection.receive()
                if not isinstance(reply, BrokerError):
                    self._stash += deliveries(self._sources, reply[0])
            if scope.cancelled_caught:
                connection.close()
            raise
        return self._silent(connection, patience)

    async def _blocking(self, connection: Connection, command: tuple[Any, ...]) -> Any:
        """The reply to a blocking read.

        Cancelled, it asks the server to end the read and stashes what came with it: a reply that nobody takes would
        strand its messages until the lease ends.
        """
        await connection.send(*command)
        try:
            with trio.move_on_after(self._block_ms / 1000 + _BLOCK_MARGIN) as patience:
                return self._checked(await connection.receive())
        except trio.Cancelled:
            with trio.move_on_after(_UNBLOCK, shield=True) as scope:
                client_id = connection.client_id
                await self._line.mention(lambda line: line.call("CLIENT", "UNBLOCK", client_id, timeout=self._timeout))
                reply = await connection.receive()
                if command[0] == "XREADGROUP" and not isinstance(reply, BrokerError):
                    self._stash += deliveries(self._sources, reply)
            if scope.cancelled_caught:
                connection.close()
            raise
        return self._silent(connection, patience)

    def _silent(self, connection: Connection, patience: trio.CancelScope) -> Any:
        connection.close()
        raise BrokerUnavailable(f"{connection.address}: no answer to a read by {patience.deadline:.0f}")

    def _checked(self, reply: Any) -> Any:
        if isinstance(reply, BrokerError):
            raise reply
        return reply

    async def reconcile(self, held: Collection[Any]) -> Sequence[Delivery]:
        """See `Consumer.reconcile`.

        An entry may be on its way to us right now, so it counts as missing only once two fetches that ended after it
        was first seen have come back without it.
        """
        known = self._owned.union(held, (delivery.receipt for delivery in self._stash))
        missing = await self._line.talk(lambda connection: self._unknown(connection, known))
        # What was received or settled while we asked is no longer missing.
        missing = [delivery for delivery in missing if delivery.receipt not in self._owned]
        self._suspects = {d.receipt: self._suspects.get(d.receipt, self._fetches) for d in missing}
        lost = [d for d in missing if self._fetches >= self._suspects[d.receipt] + 2]
        self._owned.update([delivery.receipt for delivery in lost])
        return lost

    async def _unknown(self, connection: Connection, known: Collection[Any]) -> list[Delivery]:
        """Deliveries that the server holds for us and that are not among *known*."""
        found: list[Delivery] = []
        for source in self._sources.values():
            start = "-"
            while True:
                command = ("XPENDING", source.stream, self._group, start, "+", _MAX, self.name)
                pending: list[list[Any]] = await connection.call(*command, timeout=self._timeout)
                for entry, *_ in pending:
                    if Receipt(source.stream, source.level, entry) not in known:
                        body = await connection.call("XRANGE", source.stream, entry, entry, timeout=self._timeout)
                        found += [delivery(source, key, fields) for key, fields in body]
                if len(pending) < _MAX:
                    break
                start = "(" + pending[-1][0].decode()
        return found

    # -- settling

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery | None]:
        """See `Consumer.acknowledge`."""
        answers = await self._settler.settle([Item(d.receipt, d.queue, ("ack",), pending=True) for d in deliveries])
        pairs = list(zip(deliveries, answers, strict=True))
        # What was acknowledged is still held: its run takes a place until it is settled.
        self._let_go([delivery for delivery, held in pairs if not held])
        return [replace(delivery, acked=True) if held else None for delivery, held in pairs]

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        """See `Consumer.settle`.  Raises BrokerUnavailable without an answer; repeating it finds out."""
        failed_at = datetime.fromtimestamp(self.now(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        items = [
            Item(s.delivery.receipt, s.delivery.queue, encode(s, failed_at), not s.delivery.acked) for s in settlements
        ]
        answers = await self._settler.settle(items)
        self._let_go([settlement.delivery for settlement in settlements])
        return answers

    def _let_go(self, deliveries: list[Delivery]) -> None:
        self._owned.difference_update([delivery.receipt for delivery in deliveries])
        self._settled.set()

    # -- the lease

    def now(self) -> float:
        """See `Consumer.now`."""
        return time.monotonic() + self._clock_offset

    async def renew(self) -> bool:
        """See `Consumer.renew`."""
        return await self._renew(joining=False)

    async def _renew(self, *, joining: bool) -> bool:
        renew = script("renew")
        args = [self.name, int(self.lease * 1000), "1" if joining else ""]
        held = True
        for keys in self._queues:
            before = time.monotonic()
            mine, seconds, micros = await self._line.insist(
                lambda connection, keys=keys: renew.run(connection, [keys.leases], args, timeout=self._timeout)
            )
            self._clock_offset = int(seconds) + int(micros) / 1e6 - (before + time.monotonic()) / 2
            held = held and bool(mine)
        return held
