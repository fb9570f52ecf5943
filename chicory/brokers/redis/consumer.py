"""One worker's hold on Redis streams: what it reads and settles, and the lease that both stand under.

Two connections: one that blocks for messages, and one for everything else, so that settling never waits for a read.
"""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any

import trio
from msgspec.structs import replace

from chicory.brokers.base import Delivery, Settlement
from chicory.brokers.redis.cancellations import Cancellations
from chicory.brokers.redis.keys import CancelKeys, Keys, ResultKeys
from chicory.brokers.redis.line import Line
from chicory.brokers.redis.reader import Reader
from chicory.brokers.redis.reading import Receipt
from chicory.brokers.redis.scripts import script
from chicory.brokers.redis.settler import Item, Settler
from chicory.brokers.redis.settling import encode
from chicory.brokers.redis.uniques import acknowledging, settling
from chicory.brokers.redis.workers import encode as encode_worker
from chicory.errors import BrokerError, LeaseLost
from chicory.links.redis import Connection, ServerError
from chicory.links.redis_pool import Pool
from chicory.outcome import Release
from chicory.types import TaskMessage, WorkerInfo

log = logging.getLogger("chicory.redis")


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
        cancels: CancelKeys,
        workers: str,
    ) -> None:
        self.name = name
        self.lease = lease
        self._limit = limit
        self._queues = queues
        self._group = group
        self._timeout = timeout
        # Where workers are listed, and what there is to say of this one.
        self._workers = workers
        self._tell: Callable[[], WorkerInfo] | None = None
        # Received and not yet settled.
        self._owned: set[Receipt] = set()
        self._settled = trio.Event()
        self._suspects: dict[Receipt, int] = {}
        self._clock_offset = time.time() - time.monotonic()
        self._line = Line(pool)
        self._cancellations = Cancellations(pool, self._line, cancels, timeout=timeout)
        self._cluster = cancels.cluster
        self._reader = Reader(
            pool,
            self._line,
            queues,
            name=name,
            group=group,
            block_ms=block_ms,
            timeout=timeout,
            owned=self._owned,
            restore=self._restore,
            cancellations=self._cancellations,
        )
        self._settler = Settler(
            self._line,
            queues,
            name=name,
            group=group,
            timeout=timeout,
            dlq_max_length=dlq_max_length,
            results=results,
            cancels=cancels,
        )

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
                await self._line.talk(lambda line, keys=keys: self._end_lease(line, keys))
        except BrokerError as error:
            log.warning("left without saying goodbye (%s); what is pending is given back when the lease ends", error)
        finally:
            self.close()

    def close(self) -> None:
        """Close both connections at once."""
        self._line.close()
        self._reader.close()
        self._cancellations.close()

    def reconnect(self) -> None:
        """See `Consumer.reconnect`."""
        self.close()

    async def _restore(self) -> None:
        await self._line.talk(self._ensure_groups)
        await self._renew(joining=True)

    async def _ensure_groups(self, line: Connection) -> None:
        for source in self._reader.sources.values():
            try:
                # From 0: finished entries are deleted, so whatever a stream holds is still to be done.
                command = ("XGROUP", "CREATE", source.stream, self._group, "0", "MKSTREAM")
                await line.call(*command, timeout=self._timeout)
            except ServerError as error:
                if error.code != "BUSYGROUP":
                    raise

    async def _end_lease(self, line: Connection, keys: Keys) -> None:
        names = [keys.leases, keys.alone, *keys.streams]
        args = [self._group, self.name, "" if self._cluster else self._workers]
        held = await script("leave").run(line, names, args, timeout=self._timeout)
        if self._cluster and not held:
            await line.call("HDEL", self._workers, self.name, timeout=self._timeout)

    async def _give_back_unknown(self) -> None:
        held, self._reader.stash = self._reader.stash, []
        held += await self._reader.unknown(self._owned.union(delivery.receipt for delivery in held))
        if held:
            await self.settle([Settlement(delivery, Release("the worker stopped")) for delivery in held])

    # -- receiving

    async def receive(self, limit: int) -> Sequence[Delivery]:
        """See `Consumer.receive`.  Raises BrokerUnavailable when the line breaks; calling again reconnects."""
        while True:
            await self._reader.ready()
            while (room := min(limit, self._limit - len(self._owned))) <= 0:
                self._settled = trio.Event()
                await self._settled.wait()
            found = await self._reader.read(room)
            if found:
                self._owned.update([delivery.receipt for delivery in found])
                return found

    async def reconcile(self, held: Collection[Any]) -> Sequence[Delivery]:
        """See `Consumer.reconcile`.

        An entry may be on its way to us right now, so it counts as missing only once two fetches that ended after it
        was first seen have come back without it.
        """
        reader = self._reader
        if self.cancelled:
            # What others have settled is still in ours.
            await self._cancellations.load()
        known = self._owned.union(held, (delivery.receipt for delivery in reader.stash))
        # What was received while we asked is no longer missing.
        missing = [one for one in await reader.unknown(known) if one.receipt not in self._owned]
        self._suspects = {one.receipt: self._suspects.get(one.receipt, reader.fetches) for one in missing}
        lost = [one for one in missing if reader.fetches >= self._suspects[one.receipt] + 2]
        self._owned.update([one.receipt for one in lost])
        return lost

    # -- settling

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery | None]:
        """See `Consumer.acknowledge`."""
        items = [Item(d.receipt, d.queue, ("ack",), pending=True, unique=acknowledging(d)) for d in deliveries]
        answers = await self._settler.settle(items)
        pairs = list(zip(deliveries, answers, strict=True))
        # What was acknowledged is still held: its run takes a place until it is settled.
        self._let_go([delivery for delivery, held in pairs if not held])
        return [replace(delivery, acked=True) if held else None for delivery, held in pairs]

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        """See `Consumer.settle`.  Raises BrokerUnavailable without an answer; repeating it finds out."""
        if self._cluster:
            settlements = await self._cancellations.judged(settlements, self.now())
        failed_at = datetime.fromtimestamp(self.now(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        items = [
            Item(s.delivery.receipt, s.delivery.queue, encode(s, failed_at), not s.delivery.acked, settling(s))
            for s in settlements
        ]
        answers = await self._settler.settle(items)
        self._let_go([settlement.delivery for settlement in settlements])
        if self.cancelled:
            self._cancellations.forget(
                [
                    one.delivery.message.id
                    for one in settlements
                    if not isinstance(one.outcome, Release) and isinstance(one.delivery.message, TaskMessage)
                ]
            )
        return answers

    def _let_go(self, deliveries: list[Delivery]) -> None:
        self._owned.difference_update([delivery.receipt for delivery in deliveries])
        self._settled.set()

    # -- what was cancelled

    @property
    def cancelled(self) -> Collection[str]:
        """See `CancellingConsumer.cancelled`."""
        return self._cancellations.ids

    async def heard(self) -> Collection[str]:
        """See `CancellingConsumer.heard`."""
        return await self._cancellations.heard()

    async def isolate(self, delivery: Delivery) -> None:
        """See `Consumer.isolate`."""
        await self._give_back_unknown()
        receipt: Receipt = delivery.receipt
        keys = next(keys for keys in self._queues if keys.queue == delivery.queue)
        command = ("HSET", keys.alone, self.name, f"{receipt.stream} {receipt.entry.decode()}")
        await self._line.insist(lambda line: line.call(*command, timeout=self._timeout))

    # -- the lease

    def now(self) -> float:
        """See `Consumer.now`."""
        return time.monotonic() + self._clock_offset

    def introduce(self, tell: Callable[[], WorkerInfo]) -> None:
        """See `ListedConsumer.introduce`."""
        self._tell = tell

    async def renew(self) -> bool:
        """See `Consumer.renew`."""
        held = await self._renew(joining=False)
        if self._cluster:
            await self._cancellations.tidy()
        return held

    async def _renew(self, *, joining: bool) -> bool:
        renew = script("renew")
        args: list[Any] = [self.name, int(self.lease * 1000), "1" if joining else ""]
        held = True
        for number, keys in enumerate(self._queues):
            names, facts = [keys.leases], list(args)
            if number == 0 and self._tell is not None:
                said = encode_worker(self._tell())
                if self._cluster:
                    # Before the lease is renewed: whoever takes it away later finds this there, and strikes it off.
                    command = ("HSET", self._workers, self.name, said)
                    await self._line.insist(lambda line, command=command: line.call(*command, timeout=self._timeout))
                else:
                    names.append(self._workers)
                    facts.append(said)
            before = time.monotonic()
            mine, seconds, micros = await self._line.insist(
                lambda line, names=names, facts=facts: renew.run(line, names, facts, timeout=self._timeout)
            )
            self._clock_offset = int(seconds) + int(micros) / 1e6 - (before + time.monotonic()) / 2
            held = held and bool(mine)
        return held
