"""What Chicory declares in RabbitMQ, as data: which queues, which exchanges, and how a delay finds its way.  Pure.

A delay is a number of units of 16 ms, written in binary.  For each digit there is a level: a topic exchange, and a
queue in which messages live for as long as the digit is worth and then go to the exchange of the next lower level.  A
message is published with its digits as the routing key; where a digit is 1 it waits in that level's queue, where it is
0 it goes on at once.  So a queue holds only messages that wait equally long, and a long delay never stands before a
short one, as it would where each message had its own time to live in one queue.

Each queue has levels of its own, so that what is delayed in it can be counted and purged; they are declared when first
needed.  What is declared can never be changed, so the names have a version in them: other digits get other names.
"""

from collections.abc import Iterator
from math import ceil
from typing import Any

import msgspec

from chicory.config import RabbitMQBrokerConfig

UNIT_MS = 16
LEVELS = 28
# The longest wait in one go, in units: 49 days.  Beyond it, whoever receives the message sends it to wait on.
LONGEST = 2**LEVELS - 1
# A delay is rounded up to so many binary digits: it passes no more queues than that, and is late by 1.6 % at most.
DIGITS = 7
_VERSION = "v1"

# Quorum queues of newer servers drop what was delivered twenty times, unless told otherwise; Chicory counts for itself.
_NO_DELIVERY_LIMIT = 1_000_000_000


class Queue(msgspec.Struct, frozen=True):
    """A queue to be declared."""

    name: str
    arguments: dict[str, Any]


class Exchange(msgspec.Struct, frozen=True):
    """An exchange to be declared: a topic exchange, or a fanout."""

    name: str
    kind: str = "topic"


class Binding(msgspec.Struct, frozen=True):
    """What *source* sends on to *target*, a queue or (*to_exchange*) another exchange."""

    source: str
    target: str
    pattern: str
    to_exchange: bool = False


Declaration = Queue | Exchange | Binding

# How long a worker is on the list that says nothing more, while its connection stands.
LISTED_MS = 600_000

# Where it is remembered which slots of which schedules are over.
SCHEDULES = Queue("chicory.schedules", {"x-queue-type": "classic", "x-single-active-consumer": True})


class Wait(msgspec.Struct, frozen=True):
    """A delay as the levels keep it: where to publish, and the seconds that are left when it is over."""

    level: int
    key: str
    rest: float


class Keyring:
    """Where the unique keys of one queue are, declared apart from it: most queues have none."""

    def __init__(self, queue: str, kind: dict[str, Any]) -> None:
        self.table = Queue(f"chicory.unique.{queue}", {**kind, "x-single-active-consumer": True})
        # No queue has such a name.
        self.queue = f"{queue} unique"
        self.main = self.table.name

    def basics(self) -> Iterator[Declaration]:
        """What is kept."""
        yield self.table

    def levels(self, _: int) -> Iterator[Declaration]:
        """Nothing of it is delayed."""
        return iter(())


class Names:
    """The names of one queue, and what stands under each.

    main is where messages wait for workers.  With a limit on its length, what was in the queue before comes back by
    *back*, which has none: a full queue refuses what is new and loses nothing that it has given out.
    """

    def __init__(self, config: RabbitMQBrokerConfig, queue: str) -> None:
        self.queue = queue
        self.main = f"chicory.queue.{queue}"
        self.back = self.main if config.queue_max_length is None else f"chicory.back.{queue}"
        self.dead = f"chicory.dlq.{queue}"
        self.lock = f"chicory.lock.{queue}"
        self._config = config
        self.unique = Keyring(queue, self._kind())

    @property
    def ready(self) -> tuple[str, ...]:
        """Where messages wait for workers."""
        return (self.main,) if self.back == self.main else (self.back, self.main)

    def alone(self, task_id: str) -> str:
        """A queue that exists as long as the task runs with nothing beside it."""
        return f"chicory.alone.{task_id}"

    def exchange(self, level: int) -> str:
        """Where messages enter *level*."""
        return f"chicory.delay.{_VERSION}.{self.queue}.{level}"

    def delayed(self, level: int) -> str:
        """Where messages of *level* wait."""
        return self.exchange(level)

    def basics(self) -> Iterator[Declaration]:
        """What is needed to publish, to work and to keep dead letters."""
        limits: dict[str, Any] = {}
        if self._config.queue_max_length is not None:
            limits = {"x-max-length": self._config.queue_max_length, "x-overflow": "reject-publish"}
        priorities = {} if self._config.max_priority is None else {"x-max-priority": self._config.max_priority}
        yield Queue(self.main, self._kind() | limits | priorities)
        if self.back != self.main:
            yield Queue(self.back, self._kind() | priorities)
        yield Queue(self.dead, self._kind())

    def levels(self, top: int) -> Iterator[Declaration]:
        """What is needed for delays that enter at *top* or below, from the lowest on: no level without its next."""
        for level in range(top + 1):
            yield Exchange(self.exchange(level))
            below = self.exchange(level - 1) if level else ""
            dead_lettering = {"x-message-ttl": UNIT_MS << level, "x-dead-letter-exchange": below}
            if not level:
                dead_lettering["x-dead-letter-routing-key"] = self.back
            # Never quorum: when a server of 3.10 is killed, those lose what they were passing on or keep it for ever,
            # whatever their strategy is.  Classic ones are on one node, and lost nothing.
            yield Queue(self.delayed(level), {"x-queue-type": "classic"} | dead_lettering)
            yield Binding(self.exchange(level), self.delayed(level), _pattern(level, "1"))
            if level:
                yield Binding(self.exchange(level), below, _pattern(level, "0"), to_exchange=True)
            else:
                yield Binding(self.exchange(0), self.back, _pattern(0, "0"))

    def _kind(self) -> dict[str, Any]:
        if self._config.queue_type == "quorum":
            return {"x-queue-type": "quorum", "x-delivery-limit": _NO_DELIVERY_LIMIT}
        return {"x-queue-type": "classic"}


class Lists:
    """What belongs to all queues at once, declared like one more, which has no name.

    cancelled: what everybody reads who begins to work.  news: the exchange on which everybody hears more.
    workers: what each worker last said of itself.
    """

    queue = ""

    def __init__(self, config: RabbitMQBrokerConfig) -> None:
        # Two sorts of brokers at one virtual host would quarrel about the others' arguments.
        sort = "" if config.durable else ".transient"
        arguments = {"x-queue-type": "classic", "x-single-active-consumer": True}
        self.cancelled = Queue(f"chicory.cancelled{sort}", arguments)
        self.workers = Queue(f"chicory.workers{sort}", {**arguments, "x-message-ttl": LISTED_MS})
        self.news = f"chicory.news{sort}"
        self.main = self.cancelled.name

    def basics(self) -> Iterator[Declaration]:
        """What is kept."""
        yield self.cancelled
        yield self.workers

    def levels(self, _: int) -> Iterator[Declaration]:
        """The way to those who listen."""
        yield Exchange(self.news, "fanout")


def wait(seconds: float) -> Wait:
    """How *seconds*, more than 0, are waited: never less, and 1.6 % or a unit more at most."""
    units = rounded(min(ceil(seconds * 1000 / UNIT_MS), LONGEST))
    level = units.bit_length() - 1
    return Wait(level, ".".join(format(units, f"0{LEVELS}b")), max(0.0, seconds - units * UNIT_MS / 1000))


def rounded(units: int) -> int:
    """*units* rounded up to DIGITS binary digits, within LONGEST."""
    spare = max(0, units.bit_length() - DIGITS)
    return min(-(-units >> spare) << spare, LONGEST)


def _pattern(level: int, digit: str) -> str:
    """Matches the routing keys that have *digit* at *level*; the first word is the highest."""
    return ".".join(digit if level == LEVELS - 1 - place else "*" for place in range(LEVELS))
