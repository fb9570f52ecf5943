"""What a result backend must be able to do."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

import msgspec
import trio

from chicory.brokers.base import Broker, ListsWorkers
from chicory.errors import UsageError
from chicory.types import ResultRecord, WorkerInfo


class StoredRecord(msgspec.Struct, frozen=True, gc=False):
    """A packed record and the task it belongs to."""

    task_id: str
    record: bytes


class Backend(Protocol):
    """Keeps results, each for a time, and tells who waits."""

    def joins(self, broker: Broker) -> bool:
        """Whether *broker* can store results itself, atomically with settling; it is told to, when it can."""
        ...

    def attend(self, broker: Broker) -> None:
        """The results are of tasks that go through *broker*; called once, before anything else."""
        ...

    async def expect(self, task_ids: Sequence[str]) -> None:
        """Note that these tasks are pending, unless something is known of them already."""
        ...

    async def store(self, records: Sequence[StoredRecord]) -> None:
        """Keep *records*.  A finished record is never overwritten: states only move forward."""
        ...

    async def fetch(self, task_id: str) -> ResultRecord:
        """What is known: state UNKNOWN when nothing ever was, EXPIRED when its time to live is over."""
        ...

    async def fetch_many(self, task_ids: Sequence[str]) -> Mapping[str, ResultRecord]:
        """What is known of each, in few round trips."""
        ...

    async def wait(self, task_id: str) -> ResultRecord:
        """Wait, by push, until the task is finished (or UNKNOWN or EXPIRED); the caller's cancel scope limits it."""
        ...

    async def wait_many(self, task_ids: Collection[str], count: int) -> Mapping[str, ResultRecord]:
        """Like `wait`, until *count* of them are, at least; returns all that are by then."""
        ...

    async def get_active_workers(self) -> list[WorkerInfo]:
        """The workers that are there, as the broker lists them: see `ListsWorkers`.  UsageError when it lists none."""
        ...

    async def aclose(self) -> None:
        """Close every connection of the current trio run."""
        ...


@runtime_checkable
class Notable(Protocol):
    """A backend that can be told of unfinished tasks, such as that they run; one that only passes ends on cannot."""

    async def note(self, records: Sequence[StoredRecord]) -> None:
        """Keep what is as far as what is there (see `ResultRecord.step`); a task of which nothing is known stays so."""
        ...

    async def reopen(self, task_id: str) -> None:
        """The dead letter of this task is about to be replayed: it is pending again, if it is DEAD_LETTERED."""
        ...


@runtime_checkable
class Cleanable(Protocol):
    """A backend that keeps what nobody may see any more until it is told to delete it; schedulers do."""

    async def clean(self, limit: int) -> int:
        """Delete at most *limit* results whose time to live is over; returns how many there were."""
        ...


async def wait_each(
    wait: Callable[[str], Awaitable[ResultRecord]], task_ids: Collection[str], count: int
) -> Mapping[str, ResultRecord]:
    """`wait_many` for a backend on trio alone that listens for all at once, so that each *wait* costs nothing."""
    over: dict[str, ResultRecord] = {}
    count = min(count, len(task_ids))

    async def wait_for(task_id: str) -> None:
        over[task_id] = await wait(task_id)
        if len(over) >= count:
            waiting.cancel_scope.cancel()

    async with trio.open_nursery() as waiting:
        for task_id in task_ids:
            waiting.start_soon(wait_for, task_id)
    return over


async def workers_of(broker: Broker | None) -> list[WorkerInfo]:
    """Those that *broker* lists; UsageError when it lists none."""
    if not isinstance(broker, ListsWorkers):
        kind = "a backend without an app" if broker is None else type(broker).__name__
        raise UsageError(f"{kind} knows no workers; the brokers of BrokerType list theirs")
    return await broker.get_active_workers()
