"""Results in this process's memory: the reference for all other backends, and the one for tests."""

import threading
from collections import defaultdict, deque
from collections.abc import Collection, Mapping, Sequence

import attrs

from chicory.backends.base import StoredRecord, workers_of
from chicory.brokers.base import Broker
from chicory.clock import unix_now
from chicory.ids import born
from chicory.links.executor import CALLERS, Turn, checkpoint, running
from chicory.types import LAST_STEP, ResultRecord, TaskState, WorkerInfo
from chicory.wire import pack_record, unpack_record

_PENDING = pack_record(ResultRecord(TaskState.PENDING))


@attrs.frozen
class _Kept:
    step: int
    raw: bytes


@attrs.define(eq=False)
class _Ear:
    """One who waits for some tasks.

    told: those to be looked at, at first all.  turn: set when there are some more.
    """

    told: set[str]
    turn: Turn | None = None

    def hear(self, task_id: str) -> None:
        self.told.add(task_id)
        if self.turn is not None:
            self.turn.set()


class MemoryBackend:
    """Keeps each finished result for *result_ttl* seconds, and what is unfinished until it is finished.

    With the memory broker, results are stored in one step with settling.  Like it, it serves whoever calls, in any
    thread of this process.
    """

    callers = CALLERS

    def __init__(self, *, result_ttl: float = 86400.0) -> None:
        self._ttl = result_ttl
        self._broker: Broker | None = None
        self._kept: dict[str, _Kept] = {}
        # In order of expiry, because all live equally long.  A record that was replaced meanwhile is recognised by
        # not being the same object.
        self._expiries: deque[tuple[float, str, _Kept]] = deque()
        self._waiting: defaultdict[str, list[_Ear]] = defaultdict(list)
        # Taken after the broker's, by a broker that settles; never the other way round.
        self._lock = threading.RLock()

    def joins(self, broker: Broker) -> bool:
        """See Backend.  A memory broker says of itself that it is one; drivers do not import each other."""
        return getattr(broker, "in_process", False) is True

    def attend(self, broker: Broker) -> None:
        """See `Backend.attend`."""
        self._broker = broker

    async def expect(self, task_ids: Sequence[str]) -> None:
        """See Backend."""
        await checkpoint()
        with self._lock:
            for task_id in task_ids:
                if not self.knows(task_id):
                    self.begin(task_id)

    async def store(self, records: Sequence[StoredRecord]) -> None:
        """See Backend."""
        await checkpoint()
        for record in records:
            self.keep(record.task_id, record.record)

    async def note(self, records: Sequence[StoredRecord]) -> None:
        """See Notable."""
        await checkpoint()
        with self._lock:
            for record in records:
                if self.knows(record.task_id):
                    self.keep(record.task_id, record.record)

    async def reopen(self, task_id: str) -> None:
        """See Notable."""
        await checkpoint()
        with self._lock:
            if self._look(task_id).state is TaskState.DEAD_LETTERED:
                self.begin(task_id)

    async def fetch(self, task_id: str) -> ResultRecord:
        """See Backend."""
        await checkpoint()
        with self._lock:
            return self._look(task_id)

    async def fetch_many(self, task_ids: Sequence[str]) -> Mapping[str, ResultRecord]:
        """See Backend."""
        await checkpoint()
        with self._lock:
            return {task_id: self._look(task_id) for task_id in task_ids}

    async def wait(self, task_id: str) -> ResultRecord:
        """See Backend."""
        return (await self.wait_many([task_id], 1))[task_id]

    async def wait_many(self, task_ids: Collection[str], count: int) -> Mapping[str, ResultRecord]:
        """See Backend."""
        await checkpoint()
        over: dict[str, ResultRecord] = {}
        waiting = set(task_ids)
        ear = _Ear(set(waiting))
        try:
            with self._lock:
                for task_id in waiting:
                    self._waiting[task_id].append(ear)
            while True:
                with self._lock:
                    for task_id in ear.told:
                        record = self._look(task_id)
                        if not record.state.awaited:
                            over[task_id] = record
                    ear.told.clear()
                    if len(over) >= min(count, len(waiting)):
                        return over
                    turn = ear.turn = running().signal()
                await turn.wait()
        finally:
            with self._lock:
                for task_id in waiting:
                    self._waiting[task_id].remove(ear)
                    if not self._waiting[task_id]:
                        del self._waiting[task_id]

    async def get_active_workers(self) -> list[WorkerInfo]:
        """See `Backend.get_active_workers`."""
        return await workers_of(self._broker)

    async def aclose(self) -> None:
        """See Backend.  There is nothing to close."""
        await checkpoint()

    def knows(self, task_id: str) -> bool:
        """Whether a task of this id was published and is not forgotten; for the broker."""
        with self._lock:
            self._expire()
            return task_id in self._kept

    def state(self, task_id: str) -> TaskState:
        """What is known of the task; for the broker."""
        with self._lock:
            return self._look(task_id).state

    def begin(self, task_id: str) -> None:
        """Note the task as pending, whatever was known of it; for the broker."""
        with self._lock:
            self._kept[task_id] = _Kept(0, _PENDING)

    def keep(self, task_id: str, record: bytes) -> None:
        """Store a packed record, unless the one there is further on; for the broker."""
        kept = _Kept(unpack_record(record).step, record)
        with self._lock:
            self._expire()
            there = self._kept.get(task_id)
            if there is not None and (there.step == LAST_STEP or there.step > kept.step):
                return
            self._kept[task_id] = kept
            if kept.step == LAST_STEP:
                self._expiries.append((unix_now() + self._ttl, task_id, kept))
                self._tell(task_id)

    def complete(self, task_id: str, record: bytes) -> None:
        """Replace the record of a cancelled task by one that says the same and more; for the broker."""
        with self._lock:
            kept = self._kept[task_id] = _Kept(LAST_STEP, record)
            self._expiries.append((unix_now() + self._ttl, task_id, kept))

    def forget(self, task_id: str) -> None:
        """The task will never run; for the broker."""
        with self._lock:
            if self._kept.pop(task_id, None) is not None:
                self._tell(task_id)

    def _look(self, task_id: str) -> ResultRecord:
        self._expire()
        kept = self._kept.get(task_id)
        if kept is not None:
            return unpack_record(kept.raw)
        # The id says how old its task is: no list of the forgotten has to be kept.
        made = born(task_id)
        old = made is not None and made + self._ttl < unix_now()
        return ResultRecord(TaskState.EXPIRED if old else TaskState.UNKNOWN)

    def _expire(self) -> None:
        now = unix_now()
        while self._expiries and self._expiries[0][0] <= now:
            _, task_id, kept = self._expiries.popleft()
            if self._kept.get(task_id) is kept:
                del self._kept[task_id]

    def _tell(self, task_id: str) -> None:
        for ear in self._waiting.get(task_id, ()):
            ear.hear(task_id)
