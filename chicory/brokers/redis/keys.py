"""The names of everything Chicory keeps in Redis."""

from typing import Protocol, runtime_checkable

import attrs

# Milliseconds a publisher's or a consumer's last batch is remembered after its last use.
SESSION_MS = 600_000
# Milliseconds the record of an unfinished task is kept, beyond its due time: longer than any message should wait.
UNFINISHED_MS = 30 * 24 * 3600 * 1000
# Milliseconds a cancelled task is noted of which nothing else is known.
CANCELLED_MS = 366 * 24 * 3600 * 1000


@attrs.frozen
class Keys:
    """The keys of one queue.

    A queue has a stream and a sorted set of delayed messages for each priority level; level 0 has the plain names.
    '#' cannot be part of a queue's name, so no name can run into another.
    With *cluster* the queue's name is a hash tag: all its keys live in one slot, as scripts need.
    """

    prefix: str
    queue: str
    cluster: bool = False
    levels: int = 1

    def _key(self, kind: str) -> str:
        return f"{self.prefix}:{kind}:{{{self.queue}}}" if self.cluster else f"{self.prefix}:{kind}:{self.queue}"

    def stream(self, level: int = 0) -> str:
        """Ready and delivered messages: data, task_id, and deliveries, cause once a worker has died with it."""
        return self._key("stream") + (f"#{level}" if level else "")

    def delayed(self, level: int = 0) -> str:
        """Messages by the unix second they are due."""
        return self._key("delayed") + (f"#{level}" if level else "")

    @property
    def streams(self) -> list[str]:
        """The streams of all levels, the most urgent first."""
        return [self.stream(level) for level in reversed(range(self.levels))]

    @property
    def dead(self) -> str:
        """Dead letters: data, failed_at, error, retry_count, task_id, task_name, traceback."""
        return self._key("dlq")

    @property
    def leases(self) -> str:
        """Consumers by the millisecond their lease ends."""
        return self._key("leases")

    @property
    def alone(self) -> str:
        """By consumer, the stream and entry that it isolated last; goes with the consumer."""
        return self._key("alone")

    @property
    def counters(self) -> str:
        """How many messages took each road."""
        return self._key("counters")

    @property
    def schedules(self) -> str:
        """Of each schedule: NAME, its mark; NAME#definition, NAME#fired, NAME#paused, NAME#seen.

        One for all queues, but in a cluster, where a script that publishes reaches no further than its queue.
        """
        return self._key("schedules") if self.cluster else f"{self.prefix}:schedules"

    def unique(self, key: str) -> str:
        """Who has a unique key: its task's id, and when its window ends in ms."""
        return self._key("unique") + f"#{key}"

    @property
    def wake(self) -> str:
        """The channel that says a message may have become the next one due."""
        return self._key("wake")

    def publisher(self, token: str) -> str:
        """The last batch of one publisher; lives ten minutes from its last use."""
        return self._key("publisher") + f"#{token}"

    def settled(self, consumer: str, level: int) -> str:
        """The last batch one consumer settled; lives ten minutes from its last use."""
        return self._key("settled") + f"#{level}#{consumer}"


@attrs.frozen
class CancelKeys:
    """Where the ids of cancelled tasks are, of all queues, until the task is settled or cannot be waiting any more.

    With *cluster* they have a slot of their own, where no script that settles comes.
    """

    prefix: str
    cluster: bool = False

    @property
    def cancelled(self) -> str:
        """Task ids by the millisecond until which they are noted."""
        return f"{self.prefix}:{{cancelled}}" if self.cluster else f"{self.prefix}:cancelled"

    @property
    def version(self) -> str:
        """A number that grows with each id that is added."""
        return f"{self.cancelled}:version"

    @property
    def channel(self) -> str:
        """The channel that says each id."""
        return f"{self.prefix}:cancel"


@runtime_checkable
class KeepsResults(Protocol):
    """A backend whose records a script can write."""

    @property
    def keys(self) -> "ResultKeys":
        """Where its records are."""
        ...


@attrs.frozen
class ResultKeys:
    """The names of results, and how many milliseconds they are kept."""

    prefix: str
    ttl_ms: int

    @property
    def record(self) -> str:
        """What comes before the task's id in the key of its record."""
        return f"{self.prefix}:result:"

    @property
    def waiting(self) -> str:
        """The channel that every connection listens to on which somebody waits for a result; nothing is said on it."""
        return f"{self.prefix}:waiting"

    @property
    def done(self) -> str:
        """What comes before the task's id in the channel that says it is finished."""
        return f"{self.prefix}:done:"
