"""Moves what time moves in Redis: due messages to their streams, the deliveries of dead workers back."""

import logging
import random
from collections.abc import Collection, Sequence
from typing import Any, TypeVar

import trio

from chicory.brokers.redis.keys import Keys
from chicory.brokers.redis.line import Conversation, Line
from chicory.brokers.redis.scripts import script
from chicory.errors import BrokerError, BrokerUnavailable
from chicory.links.redis import Connection
from chicory.links.redis_pool import Pool, parse_info

T = TypeVar("T")

log = logging.getLogger("chicory.redis")

_PAUSE = 0.5
_MAX = 256


class RedisKeeper:
    """See `brokers.base.Keeper`.

    After a reconnect or a failure to connect, and while the server has been up for less than a lease, nobody is taken
    for dead by silence: a broker that was away takes nothing from workers that could not renew meanwhile.
    """

    def __init__(
        self, pool: Pool, queues: Sequence[Keys], *, group: str, lease: float, timeout: float, workers: str
    ) -> None:
        self._pool = pool
        self._queues = queues
        self._group = group
        self._workers = workers
        self.lease = lease
        self._timeout = timeout
        self._line = Line(pool, opened=self._be_patient)
        # Whether this is not the first line, or the first could not be had.
        self._tried = False
        self._subscribed: Connection | None = None
        self._judge_from = 0.0

    async def promote(self, limit: int = 256) -> float | None:
        """See `Keeper.promote`."""
        promote = script("promote")
        waits: list[float] = []
        for keys in self._queues:
            for level in reversed(range(keys.levels)):
                names = [keys.delayed(level), keys.stream(level)]
                moved, wait = await self._talk(
                    lambda connection, names=names: promote.run(connection, names, [limit], timeout=self._timeout)
                )
                if moved:
                    log.debug("%s: %d due messages are ready", keys.queue, moved)
                if wait:
                    waits.append(float(wait))
        return min(waits, default=None)

    async def reclaim(
        self, limit: int = 256, *, dead: str | None = None, why: str = "", most: int | None = None
    ) -> int:
        """See `Keeper.reclaim`."""
        total = 0
        for keys in self._queues:
            more = True
            while more and total < limit:
                room = min(limit - total, _MAX)
                given, vanished, more, *gone = await self._talk(
                    lambda line, keys=keys, room=room: self._reclaim(line, keys, room, dead or "", why, most)
                )
                total += given
                if vanished:
                    log.error("%s: %d deliveries vanished from the stream: these tasks are lost", keys.queue, vanished)
                for name in gone:
                    log.info("%s: worker %s is gone", keys.queue, name.decode())
                if gone:
                    command = ("HDEL", self._workers, *gone)
                    await self._line.insist(lambda line, command=command: line.call(*command, timeout=self._timeout))
        return total

    async def _reclaim(
        self, line: Connection, keys: Keys, room: int, dead: str, why: str, most: int | None
    ) -> list[Any]:
        # Asked here, where the line is open: opening it may have put judging off.
        judge = "1" if trio.current_time() >= self._judge_from else ""
        args = [self._group, int(self.lease * 1000), room, dead, why, judge, "" if most is None else most]
        names = [keys.leases, keys.counters, keys.alone, *keys.streams]
        return await script("reclaim").run(line, names, args, timeout=self._timeout)

    async def renew(self, workers: Collection[str]) -> int:
        """See `Keeper.renew`."""
        extend, names = script("extend"), list(workers)
        renewed = 0
        for keys in self._queues:
            for start in range(0, len(names), _MAX):
                args = [int(self.lease * 1000), *names[start : start + _MAX]]
                renewed += await self._line.insist(
                    lambda line, keys=keys, args=args: extend.run(line, [keys.leases], args, timeout=self._timeout)
                )
        return renewed

    async def changed(self) -> None:
        """See `Keeper.changed`.  A broken line counts as a change: what was said meanwhile is not known."""
        if self._subscribed is None or self._subscribed.closed:
            self._subscribed = None
            try:
                self._subscribed = await self._pool.open()
                await self._subscribed.send("SUBSCRIBE", *(keys.wake for keys in self._queues))
                for _ in self._queues:
                    await self._subscribed.receive()
            except BrokerUnavailable:
                await trio.sleep(_PAUSE * (0.5 + random.random()))
            return
        try:
            await self._subscribed.receive()
        except BrokerError:
            await trio.lowlevel.checkpoint()

    async def _talk(self, conversation: Conversation[T]) -> T:
        try:
            return await self._line.talk(conversation)
        except BrokerUnavailable:
            # Others may have met the same: see `_be_patient`.
            self._tried = True
            raise

    async def _be_patient(self, connection: Connection) -> None:
        """Put judging by silence off where leases may have lapsed through no fault of their owners."""
        try:
            info = parse_info(await connection.call("INFO", "server", timeout=self._timeout))
            uptime = float(info["uptime_in_seconds"])
        except (BrokerError, KeyError, ValueError):
            uptime = 0.0
        if self._tried or uptime < self.lease:
            self._judge_from = trio.current_time() + self.lease
        self._tried = True

    def close(self) -> None:
        """Close both connections at once."""
        self._line.close()
        if self._subscribed is not None:
            self._subscribed.close()
