"""What is on its way to Redis, and what its answers mean: publishing without a connection, a clock or a loop.

Each queue's batches are numbered, and the server keeps the number it applied last.  A batch whose answer got lost is
sent again under its number before any newer one, so it is applied once however often the line breaks.  Until it is
answered it stays in doubt: its callers are told PublishUnknown when time is up, and one who publishes the same id again
joins it.
"""

import copy
import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import msgspec

from chicory.brokers.redis.keys import SESSION_MS, UNFINISHED_MS, Keys, ResultKeys
from chicory.errors import BrokerError, ChicoryError, PublishUnknown, QueueFull
from chicory.links.executor import Turn

MAX_BATCH = 256


class Item(msgspec.Struct, frozen=True, gc=False):
    """One message ready to go.

    due: '' (now), '@' and unix seconds, or '+' and seconds from now.
    unique: '' or the milliseconds of its window, a space, and what holds its key.
    """

    id: str
    data: bytes
    due: str
    noted: bool
    unique: str = ""


@attrs.define(eq=False)
class Ticket:
    """One caller's items in one queue, and what became of them."""

    lane: "Lane"
    items: Sequence[Item]
    turn: Turn
    sent: int = 0
    taken: int = 0
    error: ChicoryError | None = None
    done: bool = False
    # By the id of what was not published, the id of what has its unique key.
    instead: dict[str, str] = attrs.field(factory=dict[str, str])


@attrs.define(eq=False)
class Batch:
    """What was sent under one number; *shares* says how many of its items belong to which ticket."""

    number: int
    items: list[Item]
    shares: list[tuple[Ticket, int]]
    sent: bool = False
    _ids: frozenset[str] | None = attrs.field(default=None, init=False)

    @property
    def ids(self) -> frozenset[str]:
        """The ids of its items, put together when somebody first asks."""
        if self._ids is None:
            self._ids = frozenset([item.id for item in self.items])
        return self._ids


@attrs.define(eq=False)
class Lane:
    """The way into one level of one queue; *doubtful* is the batch that waits for its answer."""

    keys: Keys
    level: int
    session: str
    waiting: deque[Ticket] = attrs.field(factory=deque["Ticket"])
    doubtful: Batch | None = None
    number: int = 0
    names: list[str] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        keys, level = self.keys, self.level
        self.names = [self.session, keys.counters, keys.stream(level), keys.delayed(level)]

    def next_batch(self) -> Batch | None:
        """The batch to send now: one that has no answer yet, else as many waiting items as fit."""
        if self.doubtful is not None:
            return self.doubtful
        items: list[Item] = []
        shares: list[tuple[Ticket, int]] = []
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
        self.doubtful = Batch(self.number, items, shares)
        return self.doubtful

    def join(self, ticket: Ticket) -> bool:
        """Whether *ticket* repeats messages that are in doubt; then it waits for the same answer."""
        batch = self.doubtful
        if batch is None or not batch.ids.issuperset([item.id for item in ticket.items]):
            return False
        ticket.sent = len(ticket.items)
        batch.shares.append((ticket, 0))
        return True


class Outbox:
    """What one publisher has to send, lane by lane.

    turn: makes what a caller waits by; it is set when the caller's ticket is done, or when it is the one to write.
    limit: of each stream's length.  results: where pending results are noted, if anywhere.
    """

    def __init__(self, turn: Callable[[], Turn], *, limit: int | None, results: ResultKeys | None = None) -> None:
        self.results = results
        self._turn = turn
        self._limit = limit
        self._token = os.urandom(8).hex()
        self._lanes: dict[tuple[str, int], Lane] = {}

    def put(self, keys: Keys, level: int, items: Sequence[Item]) -> Ticket:
        """Let *items* stand in line, in order."""
        lane = self._lanes.get((keys.queue, level))
        if lane is None:
            lane = self._lanes[keys.queue, level] = Lane(keys, level, keys.publisher(f"{self._token}#{level}"))
        ticket = Ticket(lane, items, self._turn())
        if lane.doubtful is None or not lane.join(ticket):
            lane.waiting.append(ticket)
        return ticket

    def batches(self) -> list[tuple[Lane, Batch]]:
        """What to send now, at most one batch a lane."""
        return [(lane, batch) for lane in self._lanes.values() if (batch := lane.next_batch()) is not None]

    def call(self, lane: Lane, batch: Batch) -> tuple[list[str], list[Any]]:
        """The KEYS and ARGV of `publish.lua` that send *batch*."""
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
            note = "1" if item.noted and results is not None else ""
            args += (item.id, item.data, item.due, f"{note or 0}{item.unique}" if item.unique else note)
        return lane.names, args

    def answer(self, lane: Lane, batch: Batch, reply: Any) -> None:
        """Tell the callers of *batch* what the server took of it."""
        lane.doubtful = None
        taken, instead = (reply, None) if isinstance(reply, int) else (0, None)
        if isinstance(reply, bytes):
            taken, instead = _read(reply, batch)
        for ticket, share in batch.shares:
            if instead:
                ticket.instead.update(instead)
            mine = min(share, taken)
            taken -= mine
            ticket.taken += mine
            if isinstance(reply, ChicoryError):
                self.end(ticket, _own(reply, ticket))
            elif mine < share:
                limit = self._limit if self._limit is not None else 0
                self.end(ticket, QueueFull(lane.keys.queue, limit, published=ticket.taken))
            elif ticket.sent == len(ticket.items):
                self.end(ticket)

    def end(self, ticket: Ticket, error: ChicoryError | None = None) -> None:
        """*ticket* is done with; what was not sent of it never will be."""
        if ticket.done:
            return
        if ticket.sent < len(ticket.items):
            # Not all of it is on its way, so it still stands in line.
            ticket.lane.waiting.remove(ticket)
        ticket.error = error
        ticket.done = True
        ticket.turn.set()

    def hand_on(self) -> None:
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

    def give_up(self, error: BrokerError) -> None:
        """Time is up, or the server will not have us: everybody who waits is told."""
        for lane in self._lanes.values():
            batch = lane.doubtful
            if batch is not None:
                at = 0
                for ticket, share in batch.shares:
                    # One who joined has no share; the batch holds all of what it repeats.
                    doubtful = batch.items[at : at + share] or ticket.items
                    at += share
                    if not ticket.done:
                        unknown = PublishUnknown([item.id for item in doubtful], str(error), ticket.taken)
                        self.end(ticket, unknown if batch.sent else _own(error, ticket))
                if not batch.sent:
                    lane.doubtful = None
            while lane.waiting:
                self.end(lane.waiting[0], _own(error, lane.waiting[0]))


def _read(reply: bytes, batch: Batch) -> tuple[int, dict[str, str]]:
    """How many items were taken, and by the id of those that are there under another, that one."""
    taken, *pairs = reply.decode().split(" ")
    places = zip(pairs[::2], pairs[1::2], strict=True)
    return int(taken), {batch.items[int(place) - 1].id: task_id for place, task_id in places}


def _own(error: ChicoryError, ticket: Ticket) -> ChicoryError:
    """What to tell the caller of *ticket*: *error*, and how much was taken before it, which is nobody else's number."""
    if not ticket.taken:
        return error
    own = copy.copy(error)
    own.published = ticket.taken
    return own
