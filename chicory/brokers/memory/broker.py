"""MemoryBroker: publishing, dead letters and inspection."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, cast

from msgspec.structs import replace

from chicory.brokers.base import Consumer, Keeper, Timetable, health_of
from chicory.brokers.memory.consumer import MemoryConsumer
from chicory.brokers.memory.keeper import MemoryKeeper
from chicory.brokers.memory.places import Letter, Places
from chicory.brokers.memory.store import Lease, Limits, Records, Store
from chicory.brokers.memory.timetable import MemoryTimetable
from chicory.clock import unix_now
from chicory.delay import check_delay
from chicory.errors import QueueFull, UsageError
from chicory.links.executor import CALLERS, checkpoint
from chicory.schedules.table import Table
from chicory.types import DLQMessage, Finding, Gravity, Health, QueueSizes, TaskMessage, WorkerInfo
from chicory.wire import pack, unpack

if TYPE_CHECKING:
    from chicory.backends.base import Backend


class MemoryBroker:
    """A broker that keeps every promise but the one to outlive this object.

    lease: seconds without a renewal after which a keeper may take a worker for dead.
    max_stream_length: messages a queue may have ready or delivered before `publish` raises QueueFull; what is published
        to be due later, retried, given back or replayed is let in.
    dlq_max_length: dead letters a queue keeps; the oldest goes first.
    max_priority: the highest priority there is (higher ones count as this); None: priorities are ignored.

    Anybody in this process may call, on trio, on asyncio or blocking, in any thread; workers run on trio.  Its clock is
    that of the trio run that asks, so under `MockClock` hours pass at once.

    Publishing an id again while its task is neither finished nor dead does nothing.  With a joined backend that holds
    as long as the backend knows the task, so a repeat after `PublishUnknown` is safe however late it comes.
    """

    # What a result backend in the same process recognises this broker by.
    in_process = True
    callers = CALLERS

    def __init__(
        self,
        *,
        lease: float = 30.0,
        max_stream_length: int | None = None,
        dlq_max_length: int | None = None,
        max_priority: int | None = None,
    ) -> None:
        self._reopen: Callable[[str], Awaitable[None]] | None = None
        self._store = Store(
            Limits(
                lease=lease,
                max_stream_length=max_stream_length,
                dlq_max_length=dlq_max_length,
                max_priority=max_priority,
            )
        )
        self._schedules = Table()

    def join(self, backend: "Backend") -> None:
        """Store results in *backend*, which said that it joins, in one step with settling."""
        self._store.records = cast("Records", backend)

    def announce(self, reopen: Callable[[str], Awaitable[None]]) -> None:
        """See `Broker.announce`."""
        self._reopen = reopen

    async def publish(self, message: TaskMessage, queue: str | None = None, *, delay: float | None = None) -> str:
        """See Broker."""
        await checkpoint()
        due = message.due if delay is None else unix_now() + check_delay(delay)
        packed = _packed(message, queue)
        with self._store.lock:
            there = self._store.publish(*packed, due)
            self._store.wake()
        return there or message.id

    async def publish_many(self, messages: Sequence[TaskMessage], queue: str | None = None) -> Sequence[str]:
        """See Broker.  All are checked before the first is taken."""
        await checkpoint()
        packed = [_packed(message, queue) for message in messages]
        there: list[str] = []
        with self._store.lock:
            try:
                for message, raw in packed:
                    there.append(self._store.publish(message, raw, message.due) or message.id)
            except QueueFull as full:
                raise QueueFull(full.queue, full.limit, len(there)) from None
            finally:
                self._store.wake()
        return there

    @asynccontextmanager
    async def consumer(self, queues: Sequence[str], *, name: str, limit: int) -> AsyncGenerator[Consumer, None]:
        """See Broker.  What is still held on leaving may be running, so it stays with the lease until that lapses."""
        await checkpoint()
        with self._store.lock:
            if name in self._store.leases:
                raise UsageError(f"a consumer named {name!r} has joined already; every worker needs a name of its own")
            places = {queue: self._store.places(queue) for queue in queues}
            lease = Lease(name, frozenset(queues), unix_now() + self._store.limits.lease)
            self._store.leases[name] = lease
        try:
            yield self._consumer(lease, places, limit)
        finally:
            with self._store.lock:
                self._store.end(lease)

    def _consumer(self, lease: Lease, places: Mapping[str, Places], limit: int) -> MemoryConsumer:
        return MemoryConsumer(self._store, lease, places, limit)

    def keeper(self, queues: Sequence[str]) -> AbstractAsyncContextManager[Keeper]:
        """See Broker."""
        return self._keeper(queues)

    @asynccontextmanager
    async def _keeper(self, queues: Sequence[str]) -> AsyncGenerator[Keeper, None]:
        await checkpoint()
        yield MemoryKeeper(self._store, [self._store.places(queue) for queue in queues])

    def timetable(self) -> Timetable:
        """See Broker."""
        return MemoryTimetable(self._store, self._schedules)

    async def cancel(self, task_id: str) -> bool:
        """See CancellingBroker."""
        await checkpoint()
        with self._store.lock:
            return self._store.cancel(task_id)

    async def get_dlq_messages(self, queue: str = "default", count: int = 100, start: str = "") -> list[DLQMessage]:
        """See Broker."""
        await checkpoint()
        with self._store.lock:
            letters = islice(self._store.places(queue).letters(start), count)
            return [_dead_letter(letter_id, letter, queue) for letter_id, letter in letters]

    async def replay_from_dlq(self, message_id: str, queue: str = "default", *, reset_retries: bool = True) -> bool:
        """See Broker."""
        await checkpoint()
        if self._reopen is not None:
            with self._store.lock:
                task_id = self._store.places(queue).task_of(message_id)
            # Before it is replayed: it may be finished a moment later.
            if task_id:
                await self._reopen(task_id)
        with self._store.lock:
            places = self._store.places(queue)
            letter_id = places.find(message_id)
            if letter_id is not None:
                self._store.replay(places, letter_id, reset_retries=reset_retries)
            return letter_id is not None

    async def delete_from_dlq(self, message_id: str, queue: str = "default") -> bool:
        """See Broker."""
        await checkpoint()
        with self._store.lock:
            places = self._store.places(queue)
            letter_id = places.find(message_id)
            if letter_id is not None:
                places.delete(letter_id)
            return letter_id is not None

    async def purge_dlq(self, queue: str = "default") -> int:
        """See Broker."""
        await checkpoint()
        with self._store.lock:
            places = self._store.places(queue)
            letters = list(places.dead)
            for letter_id in letters:
                places.delete(letter_id)
            return len(letters)

    async def get_dlq_count(self, queue: str = "default") -> int:
        """See Broker."""
        await checkpoint()
        with self._store.lock:
            return len(self._store.places(queue).dead)

    async def get_queue_sizes(self, queue: str = "default") -> QueueSizes:
        """See Broker."""
        await checkpoint()
        with self._store.lock:
            return self._store.places(queue).sizes

    async def get_queue_size(self, queue: str = "default") -> int:
        """See Broker."""
        return (await self.get_queue_sizes(queue)).ready

    async def get_pending_count(self, queue: str = "default") -> int:
        """See Broker."""
        return (await self.get_queue_sizes(queue)).delivered

    async def get_consumer_count(self, queue: str = "default") -> int:
        """See Broker."""
        await checkpoint()
        with self._store.lock:
            return sum(queue in lease.queues for lease in self._store.living())

    async def get_active_workers(self) -> list[WorkerInfo]:
        """See ListsWorkers."""
        await checkpoint()
        with self._store.lock:
            told = [lease.tell() for lease in self._store.living() if lease.tell is not None]
        return sorted(told, key=lambda one: one.name)

    async def purge_queue(self, queue: str = "default", *, delayed: bool = True) -> int:
        """See Broker."""
        await checkpoint()
        with self._store.lock:
            return self._store.purge(self._store.places(queue), delayed=delayed)

    async def counters(self, queue: str = "default") -> dict[str, int]:
        """See Broker."""
        await checkpoint()
        with self._store.lock:
            return dict(self._store.places(queue).books)

    async def healthcheck(self) -> Health:
        """See Broker."""
        return await health_of(self)

    async def ping(self) -> str:
        """See Broker."""
        await checkpoint()
        return "memory"

    async def examine(self) -> list[Finding]:
        await checkpoint()
        return [Finding(Gravity.WARNING, "messages live in this process, and die with it", "broker.type = embedded")]

    async def aclose(self) -> None:
        """See Broker.  There is nothing to close."""
        await checkpoint()


def _packed(message: TaskMessage, queue: str | None) -> tuple[TaskMessage, bytes]:
    if queue is not None and queue != message.queue:
        message = replace(message, queue=queue)
    return message, pack(message)


def _dead_letter(letter_id: str, letter: Letter, queue: str) -> DLQMessage:
    message = unpack(letter.raw)
    known = message if isinstance(message, TaskMessage) else None
    return DLQMessage(
        message_id=letter_id,
        original_message=message,
        failed_at=datetime.fromtimestamp(letter.failed_at, UTC),
        error=str(letter.failure),
        retry_count=known.retries if known else 0,
        queue=queue,
        task_id=known.id if known else "",
        task_name=known.name if known else "",
        traceback=letter.failure.traceback,
    )
