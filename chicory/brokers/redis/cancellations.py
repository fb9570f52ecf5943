"""Which tasks somebody has cancelled, as one worker knows them.

Each read of messages brings the version of the list along, and when that has changed, the list is read before anything
is received: what was cancelled before it was delivered is never started.  What runs is reached by a channel.
"""

import logging
import random
from collections.abc import Collection, Sequence

import trio

from chicory.brokers.base import Settlement
from chicory.brokers.redis.keys import CancelKeys
from chicory.brokers.redis.line import Line
from chicory.cancelled import as_cancelled
from chicory.errors import BrokerError
from chicory.links.redis import Connection
from chicory.links.redis_pool import Pool
from chicory.outcome import Dead, RetryIn
from chicory.types import TaskMessage

log = logging.getLogger("chicory.redis")

# Seconds between two attempts to listen.
_PAUSE = 0.5


class Cancellations:
    """Of one consumer; *line* carries what it asks.  ids: those that are known, always the same set."""

    def __init__(self, pool: Pool, line: Line, keys: CancelKeys, *, timeout: float) -> None:
        self.ids: set[str] = set()
        self.stale = True
        # In a cluster, what is on the list although it has been settled.
        self._settled: set[str] = set()
        self._pool = pool
        self._line = line
        self._keys = keys
        self._timeout = timeout
        self._version: bytes | None = None
        self._connection: Connection | None = None

    @property
    def question(self) -> tuple[str, str]:
        """The command whose answer `compare` takes."""
        return ("GET", self._keys.version)

    def compare(self, version: object) -> None:
        """See whether the list is still of this *version*."""
        if version != self._version and not isinstance(version, BrokerError):
            self.stale = True

    async def load(self) -> None:
        """Read the list.  Raises BrokerUnavailable."""
        before = set(self.ids)
        version, listed = await self._line.talk(self._read)
        # What was heard of meanwhile stays: it may be younger than the answer.
        found = {task_id.decode() for task_id in listed} - self._settled
        self.ids.difference_update(before - found)
        self.ids.update(found)
        self._version, self.stale = version, False

    async def _read(self, line: Connection) -> tuple[bytes | None, list[bytes]]:
        commands = [("GET", self._keys.version), ("ZRANGE", self._keys.cancelled, 0, -1)]
        replies = await line.pipeline(commands, timeout=self._timeout)
        for reply in replies:
            if isinstance(reply, BrokerError):
                raise reply
        version, listed = replies
        return version, listed

    async def judged(self, settlements: Sequence[Settlement], now: float) -> Sequence[Settlement]:
        """*settlements* as those of cancelled tasks are to be carried out, in a cluster.

        Elsewhere settle.lua sees to that.  Here it cannot reach the list, so that is asked before a retry or a dead
        letter, which would outlive the task; of what is over with its end, what has been heard is enough.
        """
        doubtful = [
            one.delivery.message.id
            for one in settlements
            if isinstance(one.outcome, RetryIn | Dead) and isinstance(one.delivery.message, TaskMessage)
        ]
        if doubtful:
            command = ("ZMSCORE", self._keys.cancelled, *doubtful)
            noted = await self._line.insist(lambda line: line.call(*command, timeout=self._timeout))
            self.ids.update([task_id for task_id, until in zip(doubtful, noted, strict=True) if until is not None])
        return as_cancelled(settlements, self.ids, now)

    def forget(self, task_ids: Collection[str]) -> None:
        """These have been settled."""
        if self._keys.cluster:
            self._settled |= self.ids.intersection(task_ids)
        self.ids.difference_update(task_ids)

    async def tidy(self) -> None:
        """Strike off the list what was settled, where settle.lua does not."""
        if self._settled:
            settled = tuple(self._settled)
            command = ("ZREM", self._keys.cancelled, *settled)
            await self._line.insist(lambda line: line.call(*command, timeout=self._timeout))
            self._settled.difference_update(settled)

    async def heard(self) -> Collection[str]:
        """See `CancellingConsumer.heard`.  Who begins to listen, first reads what was said before."""
        while True:
            try:
                if self._connection is None or self._connection.closed:
                    await self._listen()
                    await self.load()
                    if self.ids:
                        return set(self.ids)
                assert self._connection is not None
                said = await self._connection.receive()
                if isinstance(said, BrokerError):
                    raise said
            except BrokerError as error:
                log.info("cannot hear of cancelled tasks (%s); trying on", error)
                await trio.sleep(_PAUSE * (0.5 + random.random()))
            else:
                task_id = said[2].decode()
                self.ids.add(task_id)
                return {task_id}

    async def _listen(self) -> None:
        self._connection = None
        connection = await self._pool.open()
        try:
            await connection.send("SUBSCRIBE", self._keys.channel)
            subscribed = await connection.receive()
            if isinstance(subscribed, BrokerError):
                raise subscribed
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def close(self) -> None:
        """Close the connection at once."""
        if self._connection is not None:
            self._connection.close()
