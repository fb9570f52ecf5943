"""Publishing to Redis: whoever arrives while a write is under way goes out with the next one.

Each queue's batches are numbered, and the server keeps the number it applied last.  A batch whose answer got lost is
sent again under its number before any newer one, so it is applied once however often the line breaks.  Until it is
answered it stays in doubt: its callers are told PublishUnknown when time is up, and one who publishes the same id again
joins it.

There is no background task: the first caller writes for all who wait, then hands the pen on.
"""

import logging
import os
import random
from collections import deque
from collections.abc import Sequence
from typing import Any

import attrs
import msgspec
import trio

from chicory.brokers.redis.keys import SESSION_MS, UNFINISHED_MS, Keys, ResultKeys
from chicory.brokers.redis.scripts import script
from chicory.errors import BrokerError, BrokerUnavailable, ChicoryError, PublishUnknown, QueueFull
from chicory.links.redis import Connection, ServerError
from chicory.links.redis_pool import Pool

log = logging.getLogger("chicory.redis")

MAX_BATCH = 256
_FIRST_PAUSE = 0.02
_LONGEST_PAUSE = 1.0


class Item(msgspec.Struct, frozen=True):
    """One message ready to go: *due* is '' (now), '@' and unix seconds, or '+' and seconds from now."""

    id: str
    data: bytes
    due: str
    noted: bool


@attrs.define(eq=False)
class _Ticket:
    """One caller's items in one queue, and what became of them."""

    lane: "_Lane"
    items: Sequence[Item]
    sent: int = 0
    taken: int = 0
    error: ChicoryError | None = None
    done: bool = False
    turn: trio.Event = attrs.field(factory=trio.Event)


@attrs.define(eq=False)
class _Batch:
    """What was sent under one number; *shares* says how many of its items belong to which ticket."""

    number: int
    items: list[Item]
    shares: list[tuple[_Ticket, int]]
    sent: bool = False
    _ids: frozenset[str] | None = attrs.field(default=None, init=False)

    @property
    def ids(self) -> frozenset[str]:
        """The ids of its items, put together when somebody first asks."""
        if self._ids is None:
            self._ids = frozenset([item.id for item in self.items])
        return self._ids


@attrs.define(eq=False)
class _Lane:
    """The way into one level of one queue; *doubtful* is the batch that waits for its answer."""

    keys: Keys
    level: int
    session: str
    waiting: deque[_Ticket] = attrs.field(factory=deque["_Ticket"])
    doubtful: _Batch | None = None
    number: int = 0
    names: list[str] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        keys, level = self.keys, self.level
        self.names = [self.session, keys.counters, keys.stream(level), keys.delayed(level)]

    def next_batch(self) -> _Batch | None:
        """The batch to send now: one that has no answer yet, else as many waiting items as fit."""
        if self.doubtful is not None:
            return self.doubtful
        items: list[Item] = []
        shares: list[tuple[_Ticket, int]] = []
        while self.waiting and len(items) < MAX_BATCH:
            ticket = self.waiting[0]
            share = ticket.items[ticket.sent : ticket.sent + MAX_BATCH - len(items)]
            ticket.sent += len(share)
            items.extend(share)
            shares.append((ticket, len(share)))
            if ticket.sent == len(ticket.items):
                self.waiting.popleft()
        if not items:
            return None
        self.number += 1
        self.doubtful = _Batch(self.number, items, shares)
        return self.doubtful


class Publisher:
    """Publishes for one app in one trio run."""

    def __init__(self, pool: Pool, *, timeout: float, limit: int | None) -> None:
        self._pool = pool
        self._timeout = timeout
        self._limit = limit
        self._token = os.urandom(8).hex()
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._writing = False
        self._connection: Connection | None = None
        self.results: ResultKeys | None = None

    async def publish(self, keys: Keys, level: int, items: Sequence[Item]) -> None:
        """Return once the server has *items*, in order."""
        lane = self._lanes.get((keys.queue, level))
        if lane is None:
            lane = self._lanes[keys.queue, level] = _Lane(keys, level, keys.publisher(f"{self._token}#{level}"))
        ticket = _Ticket(lane, items)
        if lane.doubtful is None or not self._join_doubtful(lane.doubtful, ticket):
            lane.waiting.append(ticket)
        try:
            await self._see_through(ticket)
        except BaseException:
            # What was not sent yet surely is not there; what was sent is there, or in doubt.
            self._end(ticket)
            raise
        finally:
            if not self._writing:
                self._hand_on()
        if ticket.error is not None:
            raise ticket.error

    def _join_doubtful(self, batch: _Batch, ticket: _Ticket) -> bool:
        """Whether *ticket* repeats messages that are in doubt; then it waits for the same answer."""
        if not batch.ids.issuperset([item.id for item in ticket.items]):
            return False
        ticket.sent = len(ticket.items)
        batch.shares.append((ticket, 0))
        return True

    async def _see_through(self, ticket: _Ticket) -> None:
        while not ticket.done:
            if self._writing:
                await ticket.turn.wait()
                if not ticket.done:
                    ticket.turn = trio.Event()
                continue
            self._writing = True
            try:
                await self._write(ticket)
            finally:
                self._writing = False

    def _hand_on(self) -> None:
        """Wake the next caller that must write: one waiting, or one whose batch is in doubt."""
        for lane in self._lanes.values():
            if lane.waiting:
                lane.waiting[0].turn.set()
                return
            if lane.doubtful is not None:
                for ticket, _ in lane.doubtful.shares:
                    if not ticket.done:
                        ticket.turn.set()
                        return

    async def _write(self, own: _Ticket) -> None:
        """Write batches of every lane until *own* is finished."""
        deadline = trio.current_time() + self._timeout
        pause = _FIRST_PAUSE
        while not own.done:
            batches = [(lane, batch) for lane in self._lanes.values() if (batch := lane.next_batch()) is not None]
            try:
                connection = await self._ready_connection()
                replies = await self._exchange(connection, batches, deadline)
            except BrokerUnavailable as error:
                if trio.current_time() + pause >= deadline:
                    self._give_up(error)
                    return
                if pause == _FIRST_PAUSE:
                    log.warning("%s (trying on for %g s)", error, self._timeout)
                await trio.sleep(pause * (0.5 + random.random() / 2))
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            except BrokerError as error:
                self._give_up(error)
                return
            pause = _FIRST_PAUSE
            for (lane, batch), reply in zip(batches, replies, strict=True):
                self._answer(lane, batch, reply)

    async def _ready_connection(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = None
            self._connection = await self._pool.open()
        return self._connection

    async def _exchange(
        self, connection: Connection, batches: list[tuple[_Lane, _Batch]], deadline: float
    ) -> list[Any]:
        timeout = max(0.1, deadline - trio.current_time())
        publish = script("publish")
        calls = [self._call(lane, batch) for lane, batch in batches]
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

    def _call(self, lane: _Lane, batch: _Batch) -> tuple[list[str], list[Any]]:
        results = self.results
        args: list[Any] = [
            batch.number,
            SESSION_MS,
            "" if self._limit is None else self._limit,
            lane.keys.wake,
            "" if results is None else results.record,
            UNFINISHED_MS,
        ]
        for item in batch.items:
            args += (item.id, item.data, item.due, "1" if item.noted and results is not None else "")
        return lane.names, args

    def _answer(self, lane: _Lane, batch: _Batch, reply: Any) -> None:
        """Tell the callers of *batch* what the server took of it."""
        lane.doubtful = None
        taken = reply if isinstance(reply, int) else 0
        for ticket, share in batch.shares:
            mine = min(share, taken)
            taken -= mine
            ticket.taken += mine
            if isinstance(reply, ChicoryError):
                self._end(ticket, reply)
            elif mine < share:
                limit = self._limit if self._limit is not None else 0
                self._end(ticket, QueueFull(lane.keys.queue, limit, published=ticket.taken))
            elif ticket.sent == len(ticket.items):
                self._end(ticket)

    def _end(self, ticket: _Ticket, error: ChicoryError | None = None) -> None:
        if ticket.done:
            return
        if ticket.sent < len(ticket.items):
            # Not all of it is on its way, so it still stands in line.
            ticket.lane.waiting.remove(ticket)
        ticket.error = error
        ticket.done = True
        ticket.turn.set()

    def _give_up(self, error: BrokerError) -> None:
        """Time is up, or the server will not have us: everybody who waits is told."""
        for lane in self._lanes.values():
            batch = lane.doubtful
            if batch is not None:
                unknown = PublishUnknown([item.id for item in batch.items], str(error)) if batch.sent else error
                for ticket, _ in batch.shares:
                    if not ticket.done:
                        self._end(ticket, unknown)
                if not batch.sent:
                    lane.doubtful = None
            while lane.waiting:
                self._end(lane.waiting[0], error)

    def close(self) -> None:
        """Close the connection; nobody may be publishing."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
