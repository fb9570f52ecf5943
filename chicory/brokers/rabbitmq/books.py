"""How many messages took each road, as far as this process has seen: RabbitMQ itself keeps no books."""

from collections import Counter

from chicory.brokers.base import ROADS


class Books:
    """The books of all queues that one broker object knows."""

    def __init__(self) -> None:
        self._queues: dict[str, Counter[str]] = {}

    def note(self, queue: str, road: str, count: int = 1) -> None:
        """*count* messages of *queue* took *road*."""
        self._of(queue)[road] += count

    def read(self, queue: str) -> dict[str, int]:
        """The totals of *queue*, every road named."""
        return dict(self._of(queue))

    def _of(self, queue: str) -> Counter[str]:
        return self._queues.setdefault(queue, Counter(dict.fromkeys(ROADS, 0)))
