"""What a worker holds, and the facts that can be waited for."""

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import trio

from chicory.brokers.base import Delivery


class Tally:
    """What a worker has done since it started, and who waits for how much of it."""

    def __init__(self) -> None:
        self.fetched = 0
        self.settled = 0
        self.stale = 0
        self.left = 0
        self.outcomes = Counter[str]()
        self._waiting: list[tuple[Callable[[], bool], trio.Event]] = []

    async def until(self, fact: Callable[[], bool]) -> None:
        """Wait until *fact* is true."""
        if fact():
            await trio.lowlevel.checkpoint()
            return
        event = trio.Event()
        self._waiting.append((fact, event))
        try:
            await event.wait()
        finally:
            self._waiting.remove((fact, event))

    def changed(self) -> None:
        """Something changed: tell whom it concerns."""
        for fact, event in self._waiting:
            if fact():
                event.set()

    def report(self) -> dict[str, int]:
        """The counts, for the log and for chicoryd."""
        return {
            "fetched": self.fetched,
            "settled": self.settled,
            **dict(sorted(self.outcomes.items())),
            "stale": self.stale,
            "left": self.left,
        }


class Holdings:
    """The deliveries of one lease: received and not yet settled, *slots* at most, *concurrency* of them running."""

    def __init__(self, concurrency: int, slots: int) -> None:
        self.concurrency = concurrency
        self.slots = slots
        self.held: dict[Any, Delivery] = {}
        self.waiting: deque[Delivery] = deque()
        self.running = 0
        self._freed = trio.Event()

    @property
    def free(self) -> int:
        """How many more may be asked for."""
        return self.slots - len(self.held)

    def take(self, delivery: Delivery) -> bool:
        """Count *delivery* among the held; False when it is there already."""
        if delivery.receipt in self.held:
            return False
        self.held[delivery.receipt] = delivery
        return True

    def give_up(self) -> list[Delivery]:
        """Those that will not be started any more."""
        unstarted = list(self.waiting)
        self.waiting.clear()
        return unstarted

    def settled(self, receipt: Any) -> None:
        """This one is no longer ours; its slot is free."""
        self.held.pop(receipt, None)
        if not self._freed.is_set():
            self._freed.set()

    async def some_free(self) -> int:
        """Wait until there is a free slot; returns how many to ask for.

        Never more than half of all: one half is read while the other is settled.  With all at once the two would take
        turns, and a worker of short tasks would get two thirds as much done.
        """
        while self.free <= 0:
            self._freed = trio.Event()
            await self._freed.wait()
        return min(self.free, (self.slots + 1) // 2)
