"""Waiting for results: one look for all who wait in one trio run.

There is no background task: one of the waiting callers looks for all, and hands that on when it leaves.  Where the
database tells of what is stored, that is looked at on the spot and a sweep only finds what was not heard; elsewhere
looks follow each other at growing distances.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Protocol

import attrs
import trio

from chicory.errors import BrokerUnavailable
from chicory.types import ResultRecord

# Seconds from one look at everything to the next: told by the database, and not.
SWEEP = 5.0
SHORTEST, LONGEST = 0.01, 0.5
# A look that takes long is followed by a rest of so many times that.
SHARE = 4
_PAUSE = 0.2


class News(Protocol):
    """Tells which tasks there is something new about."""

    async def listen(self) -> bool:
        """See to it that nothing said from now on is missed; True when it may have been until now."""
        ...

    async def heard(self) -> Collection[str]:
        """Wait for the next ones.  Raises BrokerUnavailable when the line breaks."""
        ...

    def close(self) -> None:
        """Hang up."""
        ...


def next_look(last: float, *, found: bool, took: float) -> float:
    """Seconds to the next look when nobody tells.

    last: seconds before the one that *took* so long.  found: whether it found something.
    """
    grown = SHORTEST if found else min(last * 1.5, LONGEST)
    return max(grown, took * SHARE)


@attrs.define(eq=False)
class _Seat:
    """One caller.  *turn* is set when its record is there, or when it is its turn to look."""

    record: ResultRecord | None = None
    turn: trio.Event = attrs.field(factory=trio.Event)


class Watch:
    """look: what is over of the tasks given: finished, or not known any more.  news: None where nobody tells."""

    def __init__(
        self, look: Callable[[Collection[str]], Awaitable[Mapping[str, ResultRecord]]], news: News | None
    ) -> None:
        self._look = look
        self._news = news
        self._seats: defaultdict[str, list[_Seat]] = defaultdict(list)
        # To be looked at now; what has not been yet, stays in it whoever leaves.
        self._asked: set[str] = set()
        self._wake = trio.Event()
        self._looking = False
        self._rest = SHORTEST
        self._took = 0.0
        self._sweep_at = 0.0

    async def wait(self, task_id: str) -> ResultRecord:
        """Wait until *task_id* is over."""
        seat = _Seat()
        self._seats[task_id].append(seat)
        self._ask({task_id})
        self._hasten()
        try:
            while seat.record is None:
                if self._looking:
                    await seat.turn.wait()
                    seat.turn = trio.Event()
                else:
                    await self._lead(seat)
        finally:
            self._seats[task_id].remove(seat)
            if not self._seats[task_id]:
                del self._seats[task_id]
                self._asked.discard(task_id)
            if not self._looking:
                self._hand_on()
        return seat.record

    def close(self) -> None:
        """Hang up; whoever waits still, looks on without being told until it listens again."""
        if self._news is not None:
            self._news.close()

    def _ask(self, task_ids: Collection[str]) -> None:
        self._asked.update(task_ids)
        self._wake.set()

    def _hasten(self) -> None:
        """Begin with short distances again: most tasks are short."""
        self._rest = SHORTEST
        if self._news is None:
            self._sweep_at = min(self._sweep_at, trio.current_time() + max(SHORTEST, self._took * SHARE))

    def _hand_on(self) -> None:
        for seats in self._seats.values():
            for seat in seats:
                seat.turn.set()
                return

    async def _lead(self, seat: _Seat) -> None:
        self._looking = True
        try:
            while seat.record is None:
                try:
                    told = await self._listen()
                    await self._look_round(told=told)
                except BrokerUnavailable:
                    # Whoever waits for a result waits for the database too.
                    await trio.sleep(_PAUSE)
                    continue
                if seat.record is None:
                    await self._sleep(told=told)
        finally:
            self._looking = False

    async def _listen(self) -> bool:
        """Whether the database will tell."""
        if self._news is None:
            return False
        if await self._news.listen():
            self._asked.update(self._seats)
        return True

    async def _look_round(self, *, told: bool) -> None:
        began = trio.current_time()
        sweeping = began >= self._sweep_at
        self._wake = trio.Event()
        ids = set(self._seats) if sweeping else self._asked & self._seats.keys()
        found: Mapping[str, ResultRecord] = await self._look(ids) if ids else {}
        self._asked -= ids
        for task_id, record in found.items():
            for seat in self._seats.get(task_id, ()):
                seat.record = record
                seat.turn.set()
        if sweeping or found:
            now = trio.current_time()
            self._took = now - began
            self._rest = next_look(self._rest, found=bool(found), took=self._took)
            self._sweep_at = now + (SWEEP if told else self._rest)

    async def _sleep(self, *, told: bool) -> None:
        with trio.move_on_at(self._sweep_at):
            if self._news is None or not told:
                await self._wake.wait()
                return
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._hear, self._news)
                await self._wake.wait()
                nursery.cancel_scope.cancel()

    async def _hear(self, news: News) -> None:
        try:
            while True:
                self._ask(set(await news.heard()) & self._seats.keys())
        except BrokerUnavailable:
            self._wake.set()
