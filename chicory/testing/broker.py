"""A memory broker that remembers what was sent and what ran."""

import math
from collections.abc import Awaitable, Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import final

import attrs
from msgspec.structs import replace

from chicory.brokers.base import Delivery, Settlement
from chicory.brokers.memory import MemoryBroker
from chicory.brokers.memory.consumer import MemoryConsumer
from chicory.brokers.memory.places import Entry, Places
from chicory.brokers.memory.store import Lease, Store
from chicory.clock import unix_now
from chicory.outcome import Release
from chicory.schedules.entry import Entry as Scheduled
from chicory.testing.clock import TICK
from chicory.testing.records import Enqueued, Run
from chicory.types import TaskMessage
from chicory.wire import unpack

KILLED = "its worker was as if killed before it could settle"


@final
@attrs.define(eq=False)
class Watch:
    """What somebody wants to know of the runs that end while a drain lasts, and to do with them.

    noted: called after each.  redeliver: whether each message is delivered once more after its first run.
    """

    noted: Callable[[], None]
    redeliver: bool = False
    runs: list[Run] = attrs.field(factory=list[Run])
    redelivered: set[str] = attrs.field(factory=set[str])

    def loses(self, settlement: Settlement) -> bool:
        """Whether the worker is to be as if killed when it would settle this."""
        delivery = settlement.delivery
        if not self.redeliver or delivery.acked or isinstance(settlement.outcome, Release):
            return False
        if not isinstance(delivery.message, TaskMessage) or delivery.message.id in self.redelivered:
            return False
        self.redelivered.add(delivery.message.id)
        return True


class ObservedBroker(MemoryBroker):
    """See MemoryBroker.

    ran: every run that is over, in the order in which they ended.
    published: awaited with the ids of tasks when they have been published.
    """

    def __init__(
        self,
        *,
        max_stream_length: int | None = None,
        dlq_max_length: int | None = None,
        max_priority: int | None = None,
    ) -> None:
        super().__init__(max_stream_length=max_stream_length, dlq_max_length=dlq_max_length, max_priority=max_priority)
        self.ran: list[Run] = []
        self.published: Callable[[Sequence[str]], Awaitable[None]] | None = None
        self._entered: dict[str, float] = {}
        self._alone: dict[str, str] = {}
        self._watches: dict[str, Watch] = {}

    async def publish(self, message: TaskMessage, queue: str | None = None, *, delay: float | None = None) -> str:
        """See Broker."""
        self._entered[message.id] = unix_now()
        there = await super().publish(message, queue, delay=delay)
        if self.published is not None:
            await self.published([there])
        return there

    async def publish_many(self, messages: Sequence[TaskMessage], queue: str | None = None) -> Sequence[str]:
        """See Broker."""
        self._entered.update(dict.fromkeys([message.id for message in messages], unix_now()))
        there = await super().publish_many(messages, queue)
        if self.published is not None:
            await self.published(there)
        return there

    @property
    def worked(self) -> bool:
        """Whether a worker has joined."""
        return bool(self._store.leases)

    @property
    def queues(self) -> list[str]:
        """Those that something was ever sent to."""
        with self._store.lock:
            return list(self._store.queues)

    def holds(self, worker: str) -> bool:
        """Whether *worker* has deliveries that are neither settled nor acknowledged."""
        with self._store.lock:
            return worker in self._store.leases and bool(self._store.leases[worker].held)

    def enqueued(self, task_id: str | None = None) -> list[Enqueued]:
        """What waits, of one task or of all: what is ready, then what is delayed, each in its turn."""
        waiting = self._waiting()
        waiting.sort(key=lambda one: (one[1] is not None, one[1] or 0.0, -one[0].priority, one[0].turn))
        decoded = [(unpack(entry.raw), due) for entry, due in waiting]
        return [
            Enqueued(message, 0.0 if due is None else due - self._entered.get(message.id, due))
            for message, due in decoded
            if isinstance(message, TaskMessage) and task_id in (None, message.id)
        ]

    def begin(self, entries: Sequence[Scheduled], instant: float) -> None:
        """The schedules of *entries* are in force since *instant*, where nothing else is known of them."""
        with self._store.lock:
            self._schedules.begin(entries, instant)

    def promote(self) -> None:
        """Make ready what is due."""
        now = unix_now() + TICK
        with self._store.lock:
            for places in self._store.queues.values():
                places.promote(now, len(places.waiting))
            self._store.arrival.ring()

    def ready(self, task_id: str | None, queues: Collection[str] | None = None) -> bool:
        """Whether there is something to run: of one task, or of all; in these *queues*, or in any."""
        return any(due is None and _is(entry, task_id) for entry, due in self._waiting(queues))

    def next_due(self, task_id: str | None) -> float:
        """When the next delayed message is due, of one task, or of all; infinity when there is none."""
        dues = (due for entry, due in self._waiting() if due is not None and _is(entry, task_id))
        return min(dues, default=math.inf)

    def skip(self, seconds: float) -> None:
        """The clock was moved by hand."""
        with self._store.lock:
            self._store.skip(seconds)

    @contextmanager
    def watched(self, worker: str, watch: Watch, *, only: str | None) -> Generator[None]:
        """While the block lasts, *watch* what *worker* runs; of one task alone, where *only* names it."""
        self._watches[worker] = watch
        if only is not None:
            self._alone[worker] = only
        try:
            yield
        finally:
            del self._watches[worker]
            self._alone.pop(worker, None)

    def note(self, consumer: str, run: Run) -> None:
        """*run* is over."""
        self.ran.append(run)
        if isinstance(run.message, TaskMessage):
            self._entered[run.message.id] = unix_now()
        if (watch := self._watches.get(consumer)) is not None:
            watch.runs.append(run)
            watch.noted()

    def _waiting(self, queues: Collection[str] | None = None) -> list[tuple[Entry, float | None]]:
        with self._store.lock:
            looked = [places for name, places in self._store.queues.items() if queues is None or name in queues]
            return [one for places in looked for one in places.waiting]

    def _consumer(self, lease: Lease, places: Mapping[str, Places], limit: int) -> MemoryConsumer:
        only, watch = self._alone.get(lease.name), self._watches.get(lease.name)
        return _ObservedConsumer(self._store, lease, places, limit, broker=self, only=only, watch=watch)


class _ObservedConsumer(MemoryConsumer):
    """Tells the broker of every run it settles."""

    def __init__(
        self,
        store: Store,
        lease: Lease,
        queues: Mapping[str, Places],
        limit: int,
        *,
        broker: ObservedBroker,
        only: str | None,
        watch: Watch | None,
    ) -> None:
        super().__init__(store, lease, queues, limit)
        self._broker = broker
        self._only = only
        self._watch = watch

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        lost = [self._watch is not None and self._watch.loses(one) for one in settlements]
        carried_out = [
            replace(one, outcome=Release(KILLED, charged=True), record=None) if dies else one
            for one, dies in zip(settlements, lost, strict=True)
        ]
        held = await super().settle(carried_out)
        ended = datetime.fromtimestamp(unix_now(), UTC)
        for one, dies, ours in zip(settlements, lost, held, strict=True):
            if ours and not isinstance(one.outcome, Release):
                run = Run(
                    message=one.delivery.message,
                    outcome=one.outcome,
                    deliveries=one.delivery.count,
                    ended=ended,
                    lost=dies,
                )
                self._broker.note(self.name, run)
        return held

    def _take(self, free: int) -> list[Delivery]:
        if self._only is None:
            return super()._take(free)
        return self._store.deliver_task(self._lease, self._queues, self._only) if free else []


def _is(entry: Entry, task_id: str | None) -> bool:
    return task_id is None or entry.task_id == task_id
