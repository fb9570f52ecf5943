"""Publishing to Redis: whoever arrives while a write is under way goes out with the next one.

What is sent, and what an answer means, is the outbox's to say; here it is written, by whichever library runs.  There is
no background task: the first caller writes for all who wait, then hands the pen on.
"""

import logging
import random
from collections.abc import Mapping, Sequence
from typing import Any

from chicory.brokers.redis.keys import Keys, ResultKeys
from chicory.brokers.redis.outbox import Batch, Item, Lane, Outbox, Ticket
from chicory.brokers.redis.scripts import script
from chicory.errors import BrokerError, BrokerUnavailable
from chicory.links.redis import Connection, ServerError
from chicory.links.redis_pool import Pool
from chicory.outage import Pace

log = logging.getLogger("chicory.redis")


class Publisher:
    """Publishes for one app in one run: of trio, of an asyncio loop, or of one sync caller at a time."""

    def __init__(
        self, pool: Pool, *, timeout: float, pace: Pace, limit: int | None, results: ResultKeys | None = None
    ) -> None:
        self._pool = pool
        self._timeout = timeout
        self._pace = pace
        self._now = pool.executor.now
        self._sleep = pool.executor.sleep
        self._turn = pool.executor.event
        self._outbox = Outbox(self._turn, limit=limit, results=results)
        self._writing = False
        # Whether more than one caller was answered last time.
        self._crowd = False
        self._connection: Connection | None = None

    async def publish(self, keys: Keys, level: int, items: Sequence[Item]) -> Mapping[str, str]:
        """Return once the server has *items*, in order.

        Of those that it did not take, because others have their unique keys, the ids of those by their own.
        """
        ticket = self._outbox.put(keys, level, items)
        try:
            await self._see_through(ticket)
        except BaseException:
            # What was not sent yet surely is not there; what was sent is there, or in doubt.
            self._outbox.end(ticket)
            raise
        finally:
            if not self._writing:
                self._outbox.hand_on()
        if ticket.error is not None:
            raise ticket.error
        return ticket.instead

    async def _see_through(self, ticket: Ticket) -> None:
        while not ticket.done:
            if self._writing:
                await ticket.turn.wait()
                if not ticket.done:
                    ticket.turn = self._turn()
                continue
            self._writing = True
            try:
                if self._crowd:
                    # Whoever was answered with us is about to send more.  Two turns, for in the first one the dice say
                    # who of us all comes first.
                    await self._sleep(0)
                    await self._sleep(0)
                await self._write(ticket)
            finally:
                self._writing = False

    async def _write(self, own: Ticket) -> None:
        """Write batches of every lane until *own* is finished."""
        deadline = self._now() + self._timeout
        failures = 0
        while not own.done:
            batches = self._outbox.batches()
            try:
                connection = await self._ready_connection()
                replies = await self._exchange(connection, batches, deadline)
            except BrokerUnavailable as error:
                failures += 1
                pause = self._pace.wait(failures, random.random())
                if self._now() + pause >= deadline:
                    self._outbox.give_up(error)
                    return
                if failures == 1:
                    log.warning("%s (trying on for %g s)", error, self._timeout)
                await self._sleep(pause)
                continue
            except BrokerError as error:
                self._outbox.give_up(error)
                return
            failures = 0
            self._crowd = sum(len(batch.shares) for _, batch in batches) > 1
            for (lane, batch), reply in zip(batches, replies, strict=True):
                self._outbox.answer(lane, batch, reply)

    async def _ready_connection(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = None
            self._connection = await self._pool.open()
        return self._connection

    async def _exchange(self, connection: Connection, batches: list[tuple[Lane, Batch]], deadline: float) -> list[Any]:
        timeout = max(0.1, deadline - self._now())
        publish = script("publish")
        calls = [self._outbox.call(lane, batch) for lane, batch in batches]
        request = b"".join([publish.command(keys, args) for keys, args in calls])
        for _, batch in batches:
            batch.sent = True
        replies = await connection.exchange(request, len(calls), timeout)
        for index, reply in enumerate(replies):
            if isinstance(reply, ServerError) and reply.code == "NOSCRIPT":
                keys, args = calls[index]
                try:
                    replies[index] = await publish.run(connection, keys, args, timeout=timeout)
                except BrokerError as error:
                    replies[index] = error
            elif isinstance(reply, BrokerUnavailable):
                # The server answers that it cannot serve now: nothing of this batch was applied.
                raise reply
        return replies

    def close(self) -> None:
        """Close the connection; nobody may be publishing."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
