"""How many messages took each road, as far as this process has seen: RabbitMQ itself keeps no books."""

from collections import Counter
from threading import get_ident

from chicory.brokers.base import ROADS


class Books:
    """The books of all queues that one broker object knows."""

    def __init__(self) -> None:
        # One for each thread that writes: to add to a number takes two steps, and another thread may come in between.
        self._queues: dict[tuple[str, int], Counter[str]] = {}

    def note(self, queue: str, road: str, count: int = 1) -> None:
        """*count* messages of *queue* took *road*."""
        key = queue, get_ident()
        if (mine := self._queues.get(key)) is None:
            mine = self._queues[key] = Counter()
        mine[road] += count

    def read(self, queue: str) -> dict[str, int]:
        """The totals of *queue*, every road named."""
        books = [book for (of, _), book in self._queues.copy().items() if of == queue]
        return {road: sum([book[road] for book in books]) for road in ROADS}
