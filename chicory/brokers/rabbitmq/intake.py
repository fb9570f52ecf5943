"""What RabbitMQ has delivered to one consumer: what nobody has received yet, and what is to be acknowledged."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import count

import attrs

from chicory.brokers.base import Delivery
from chicory.brokers.rabbitmq.mail import cause, spent
from chicory.brokers.rabbitmq.topology import Names
from chicory.links.amqp_frames import Content
from chicory.links.amqp_port import Channel
from chicory.wire import unpack

_receipts = count(1)


@attrs.define(eq=False)
class Held:
    """One delivery that RabbitMQ counts as ours.

    acks, tag: how it is acknowledged.
    redelivered: whether it was delivered before, to a consumer that neither acknowledged it nor lives.
    since: when it came, on the run's clock.
    acked, told: whether it was acknowledged before its run, and whether the worker knows that it surely was.
    done: whether it was acknowledged in the end.
    alone: the mark by which others can tell that it was isolated, or that it was when its worker died; "" for none.
    """

    names: Names
    acks: "Acks"
    tag: int
    content: Content
    redelivered: bool
    since: float
    acked: bool = False
    told: bool = False
    done: bool = False
    alone: str = ""

    def delivery(self) -> Delivery:
        """It as workers see it, under a receipt that is never used again."""
        body, headers = self.content.body, self.content.headers
        message, queue = unpack(body), self.names.queue
        if not headers:
            return Delivery(message, queue, next(_receipts), raw=body)
        return Delivery(message, queue, next(_receipts), spent(headers) + 1, cause=cause(headers), raw=body)


class Stash:
    """Deliveries that wait to be received: the most urgent first, and queues of one urgency take turns."""

    def __init__(self) -> None:
        self._levels: dict[int, dict[str, deque[Held]]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, held: Held, priority: int) -> None:
        """Add what has just come."""
        lanes = self._levels.get(priority)
        if lanes is None:
            lanes = self._levels[priority] = {}
        lane = lanes.get(held.names.queue)
        if lane is None:
            lane = lanes[held.names.queue] = deque()
        lane.append(held)
        self._count += 1

    def take(self, limit: int) -> list[Held]:
        """At most *limit* of them."""
        taken: list[Held] = []
        for level in sorted(self._levels, reverse=True):
            lanes = self._levels[level]
            while lanes and len(taken) < limit:
                share = max(1, (limit - len(taken)) // len(lanes))
                for queue, lane in list(lanes.items()):
                    taken.extend(lane.popleft() for _ in range(min(share, len(lane), limit - len(taken))))
                    # Last in line next time, if it is there at all.
                    del lanes[queue]
                    if lane:
                        lanes[queue] = lane
        self._count -= len(taken)
        return taken

    def drop(self, queue: str) -> list[Held]:
        """Take out all of *queue*."""
        dropped = [held for lanes in self._levels.values() for held in lanes.pop(queue, ())]
        self._count -= len(dropped)
        return dropped

    def count(self, queue: str) -> int:
        """How many are of *queue*."""
        return sum(len(lanes.get(queue, ())) for lanes in self._levels.values())


class Tags:
    """The tags of one channel that are not acknowledged, in the order in which they came."""

    def __init__(self) -> None:
        self._open: dict[int, bool] = {}

    def came(self, tag: int) -> None:
        """A delivery came under *tag*."""
        self._open[tag] = False

    def acknowledge(self, tags: Iterable[int]) -> Iterator[tuple[int, bool]]:
        """The acks to send for *tags*: each a tag and whether it stands for all before it too."""
        waiting = self._open
        done: list[int] = []
        for tag in tags:
            if tag in waiting:
                waiting[tag] = True
                done.append(tag)
        last = 0
        for tag in list(waiting):
            if not waiting[tag]:
                break
            del waiting[tag]
            last = tag
        if last:
            yield last, True
        for tag in done:
            if tag > last:
                del waiting[tag]
                yield tag, False


class Acks:
    """The acknowledgements of one channel."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._tags = Tags()

    def came(self, tag: int) -> None:
        """A delivery came under *tag*."""
        self._tags.came(tag)

    def send(self, tags: Iterable[int]) -> None:
        """Acknowledge *tags*, in as few frames as will do; a channel that is over takes none."""
        if self._channel.error is None:
            for tag, multiple in self._tags.acknowledge(tags):
                self._channel.ack(tag, multiple=multiple)
