"""All queues of a memory broker and who holds what.

No method waits, so each is one step to everybody else in its run; whoever calls holds the lock, so it is one step to
other threads too.
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from itertools import count as counting
from typing import Protocol, assert_never

import attrs

from chicory.brokers.base import Delivery, Settlement, life
from chicory.brokers.memory.places import Entry, Letter, Places
from chicory.brokers.memory.uniques import Uniques
from chicory.clock import unix_now
from chicory.delay import bounded
from chicory.errors import QueueFull
from chicory.links.bell import Bell
from chicory.outcome import Dead, Done, Failed, Release, RetryIn, afresh
from chicory.types import ResultRecord, TaskMessage, TaskState, WorkerInfo
from chicory.wire import check_queue, pack, pack_record, unpack


class Records(Protocol):
    """The joined backend: it keeps records without waiting, so that settling and storing are one step."""

    def knows(self, task_id: str) -> bool:
        """Whether a task of this id was published and is not forgotten."""
        ...

    def state(self, task_id: str) -> TaskState:
        """What is known of the task."""
        ...

    def begin(self, task_id: str) -> None:
        """Note the task as pending, whatever was known of it."""
        ...

    def keep(self, task_id: str, record: bytes) -> None:
        """Store a packed record, unless the one there is further on."""
        ...

    def complete(self, task_id: str, record: bytes) -> None:
        """Replace the record of a cancelled task by one that says the same, of somebody who knows more of it."""
        ...

    def forget(self, task_id: str) -> None:
        """The task will never run."""
        ...


@attrs.frozen(kw_only=True)
class Limits:
    """The broker's settings; MemoryBroker says what they mean."""

    lease: float
    max_stream_length: int | None
    dlq_max_length: int | None
    max_priority: int | None


@attrs.define(eq=False)
class Lease:
    """What one consumer holds, by receipt.

    tell: what to list of the worker; None when it has not introduced itself.
    unheard: ids of tasks that were cancelled, and it has not heard of it.
    alone: the receipt of what was isolated last.  lost: for good; nothing is handed to it and nothing taken from it.
    """

    name: str
    queues: Collection[str]
    expires: float
    held: dict[int, tuple[str, Places]] = attrs.field(factory=dict[int, tuple[str, Places]])
    tell: Callable[[], WorkerInfo] | None = None
    unheard: set[str] = attrs.field(factory=set[str])
    alone: int | None = None
    lost: bool = False


class Store:
    """The state of one memory broker."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.leases: dict[str, Lease] = {}
        self.records: Records | None = None
        self.lock = threading.RLock()
        # Where consumers wait for something to receive, and keepers for something to be due earlier.
        self.arrival = Bell()
        self.rescheduled = Bell()
        # Those that are not settled, and where consumers wait for more.
        self.cancelled: set[str] = set()
        self.cancellation = Bell()
        self._queues: defaultdict[str, Places] = defaultdict(Places)
        self._unfinished: Counter[str] = Counter()
        self._uniques = Uniques()
        self._numbers = counting(1)

    def places(self, queue: str) -> Places:
        """The queue of this name, made when it is first asked for."""
        return self._queues[check_queue(queue)]

    @property
    def queues(self) -> Mapping[str, Places]:
        """All queues that were ever asked for."""
        return self._queues

    def publish(self, message: TaskMessage, raw: bytes, due: float | None) -> str | None:
        """Take *message* in; the id of the one that is here already, by its own id or by its unique key.

        Raises QueueFull.
        """
        now = unix_now()
        if message.unique is not None:
            holder = self._uniques.holder(message.queue, message.unique, now)
            if holder is not None:
                return holder
        results = None if message.ignore_result else self.records
        if message.id in self._unfinished or (results is not None and results.knows(message.id)):
            return message.id
        places = self._queues[message.queue]
        limit = self.limits.max_stream_length
        delayed = due is not None and due > now
        if limit is not None and not delayed and places.length >= limit:
            raise QueueFull(message.queue, limit)
        places.publish(self._entry(message, raw), due if delayed else None)
        self._unfinished[message.id] += 1
        if results is not None:
            results.begin(message.id)
        if message.unique is not None:
            self._uniques.hold(message.queue, message.unique, message.id, now, message.unique_window or 0.0)
        return None

    def deliver(self, lease: Lease, queues: Mapping[str, Places], limit: int) -> list[Delivery]:
        """At most *limit* deliveries into the hands of *lease*: highest priority first, then the oldest."""
        taken: list[Delivery] = []
        while len(taken) < limit:
            heads = [(places.next_turn, queue) for queue, places in queues.items() if places.next_turn is not None]
            if not heads:
                break
            _, queue = min(heads)
            receipt = next(self._numbers)
            entry = queues[queue].take(receipt)
            lease.held[receipt] = (queue, queues[queue])
            taken.append(as_delivery(entry, queue, receipt))
        return taken

    def deliver_task(self, lease: Lease, queues: Mapping[str, Places], task_id: str) -> list[Delivery]:
        """The delivery of one task into the hands of *lease*, whatever else is ready; none when it is not ready."""
        for queue, places in queues.items():
            receipt = next(self._numbers)
            if (entry := places.pick(receipt, task_id)) is not None:
                lease.held[receipt] = (queue, places)
                return [as_delivery(entry, queue, receipt)]
        return []

    def skip(self, seconds: float) -> None:
        """Time was moved by hand: nobody could renew a lease meanwhile, so all last as much longer."""
        for lease in self.leases.values():
            lease.expires += seconds
        for places in self._queues.values():
            places.reschedules += 1
        self.rescheduled.ring()

    def acknowledge(self, lease: Lease, delivery: Delivery) -> bool:
        """Let a delivery go before its run; False when *lease* does not hold it."""
        entry = self._let_go(lease, delivery)
        if entry is not None:
            self._leave(entry.task_id)
            # Should its worker die now, nobody would ever hear of it.
            self._release(delivery.queue, entry)
        return entry is not None

    def settle(self, lease: Lease, settlement: Settlement) -> bool:
        """Carry one outcome out, and store its record; False when *lease* does not hold the delivery."""
        delivery = settlement.delivery
        entry = None
        if not delivery.acked:
            entry = self._let_go(lease, delivery)
            if entry is None:
                return False
        if self._was_cancelled(settlement, entry):
            return True
        self._carry_out(settlement, entry)
        if settlement.record is not None and self.records is not None and isinstance(delivery.message, TaskMessage):
            self.records.keep(delivery.message.id, settlement.record)
        return True

    def cancel(self, task_id: str) -> bool:
        """Note that the task is cancelled, and make that its result; False when it is finished."""
        state = TaskState.UNKNOWN if self.records is None else self.records.state(task_id)
        if state.finished:
            return state is TaskState.CANCELLED
        self.cancelled.add(task_id)
        if self.records is not None and state.awaited:
            self.records.keep(task_id, pack_record(ResultRecord(TaskState.CANCELLED, finished_at=unix_now())))
        for lease in self.leases.values():
            lease.unheard.add(task_id)
        self.cancellation.ring()
        return True

    def _was_cancelled(self, settlement: Settlement, entry: Entry | None) -> bool:
        """Whether a cancelled task is settled here: that is the end of it, unless it is only given back."""
        task_id = _task_id(settlement.delivery)
        if task_id not in self.cancelled or isinstance(settlement.outcome, Release):
            return False
        self.cancelled.discard(task_id)
        outcome, record = settlement.outcome, settlement.record
        says_so = isinstance(outcome, Failed) and outcome.state is TaskState.CANCELLED
        if says_so and record is not None and self.records is not None:
            self.records.complete(task_id, record)
        self._queues[settlement.delivery.queue].finish("failed")
        if entry is not None:
            self._leave(entry.task_id)
            self._release(settlement.delivery.queue, entry, failed=True)
        return True

    def reclaim(
        self, queues: Collection[Places], limit: int, dead: str | None, why: str, most: int | None = None
    ) -> int:
        """Take at most *limit* deliveries of dead consumers back into *queues*; see `Keeper.reclaim`."""
        now = unix_now()
        taken = 0
        for lease in list(self.leases.values()):
            reported = dead is not None and life(lease.name, dead) > 0
            if not (lease.lost or reported or lease.expires <= now):
                continue
            lease.lost = True
            cause = why if reported and why else f"the lease of {lease.name} was not renewed"
            ours = [receipt for receipt, (_, places) in lease.held.items() if places in queues]
            for receipt in ours[: limit - taken]:
                _, places = lease.held.pop(receipt)
                entry = places.let_go(receipt)
                blamed = most is None or entry.count < most or receipt == lease.alone
                places.put_back(entry, "reclaimed", charged=blamed, cause=cause)
                taken += 1
            self.end(lease)
        # Also when nothing was taken: a lost consumer that waits has to be told.
        self.arrival.ring()
        return taken

    def living(self) -> list[Lease]:
        """The leases that are not over."""
        now = unix_now()
        return [lease for lease in self.leases.values() if not lease.lost and lease.expires > now]

    def end(self, lease: Lease) -> None:
        """Forget a lease that holds nothing; one that still does waits for a keeper."""
        if not lease.held:
            self.leases.pop(lease.name, None)

    def replay(self, places: Places, letter_id: str, *, reset_retries: bool) -> None:
        """Put a dead letter back.  The task starts anew: its failure is no longer its result."""
        raw = places.dead[letter_id].raw
        message = unpack(raw)
        if isinstance(message, TaskMessage):
            again = self._entry(afresh(message) if reset_retries else message)
            self._unfinished[message.id] += 1
            if self.records is not None and not message.ignore_result:
                self.records.begin(message.id)
            if message.unique is not None and self._uniques.holder(message.queue, message.unique, unix_now()) is None:
                self._uniques.hold(message.queue, message.unique, message.id, unix_now())
        else:
            again = Entry(task_id="", raw=raw, turn=next(self._numbers))
        places.replay(letter_id, again)
        self.wake()

    def purge(self, places: Places, *, delayed: bool) -> int:
        """Forget what is ready, or *delayed* too, and that its results were ever expected."""
        gone = places.purge(delayed=delayed)
        queue = next(name for name, found in self._queues.items() if found is places)
        for entry in gone:
            self._leave(entry.task_id)
            self._release(queue, entry, failed=True)
            # One that was cancelled is finished, although its message waits.
            if self.records is not None and self.records.state(entry.task_id).awaited:
                self.records.forget(entry.task_id)
        return len(gone)

    def wake(self) -> None:
        """Tell everybody who waits to look again."""
        self.arrival.ring()
        self.rescheduled.ring()

    def _entry(self, message: TaskMessage, raw: bytes | None = None) -> Entry:
        highest = self.limits.max_priority
        return Entry(
            task_id=message.id,
            raw=pack(message) if raw is None else raw,
            turn=next(self._numbers),
            priority=0 if highest is None else min(max(message.priority or 0, 0), highest),
            unique=message.unique,
        )

    def _let_go(self, lease: Lease, delivery: Delivery) -> Entry | None:
        held = lease.held.pop(delivery.receipt, None)
        if held is None:
            # Somebody else holds this message now, or nobody does: a late result must not count twice.
            self._queues[delivery.queue].books["stale"] += 1
            return None
        _, places = held
        return places.let_go(delivery.receipt)

    def _carry_out(self, settlement: Settlement, entry: Entry | None) -> None:
        """*entry* is None when the delivery was acknowledged before its run: then it can end, but not come back."""
        delivery = settlement.delivery
        places = self._queues[delivery.queue]
        match settlement.outcome:
            case Done():
                places.finish("done")
            case Failed():
                places.finish("failed")
            case Dead(failure):
                letter_id = f"{next(self._numbers):020d}"
                letter = Letter(_raw(delivery), _task_id(delivery), failure, unix_now())
                places.bury(letter_id, letter, limit=self.limits.dlq_max_length)
            case RetryIn(delay, message):
                assert entry is not None, "a delivery that was acknowledged cannot be retried"
                wait = bounded(delay)
                places.retry(self._entry(message), unix_now() + wait if wait else None)
                return
            case Release(why, charged):
                assert entry is not None, "a delivery that was acknowledged cannot be given back"
                places.put_back(entry, "released", charged=charged, cause=why)
                return
            case _:
                assert_never(settlement.outcome)
        if entry is not None:
            self._leave(entry.task_id)
            self._release(delivery.queue, entry, failed=not isinstance(settlement.outcome, Done))

    def _release(self, queue: str, entry: Entry, *, failed: bool = False) -> None:
        if entry.unique is not None:
            self._uniques.release(queue, entry.unique, entry.task_id, failed=failed)

    def _leave(self, task_id: str) -> None:
        """One message of this task is finished, dead or gone; a replay next to a repeat makes two."""
        self._unfinished[task_id] -= 1
        if self._unfinished[task_id] <= 0:
            del self._unfinished[task_id]


def _raw(delivery: Delivery) -> bytes:
    return pack(delivery.message) if isinstance(delivery.message, TaskMessage) else delivery.message.raw


def _task_id(delivery: Delivery) -> str:
    return delivery.message.id if isinstance(delivery.message, TaskMessage) else ""


def as_delivery(entry: Entry, queue: str, receipt: int) -> Delivery:
    """*entry* as its holder sees it: values of its own, because a task may change its arguments."""
    return Delivery(unpack(entry.raw), queue, receipt, entry.count, cause=entry.cause, raw=entry.raw)
