"""What a result backend must be able to do."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec

from chicory.brokers.base import Broker
from chicory.types import ResultRecord


class StoredRecord(msgspec.Struct, frozen=True):
    """A packed record and the task it belongs to."""

    task_id: str
    record: bytes


class Backend(Protocol):
    """Keeps results, each for a time, and tells who waits."""

    def joins(self, broker: Broker) -> bool:
        """Whether *broker* can store results itself, atomically with settling; it is told to, when it can."""
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

    async def wait(self, task_id: str) -> ResultRecord:
        """Wait, by push, until the task is finished (or UNKNOWN or EXPIRED); the caller's cancel scope limits it."""
        ...

    async def aclose(self) -> None:
        """Close every connection of the current trio run."""
        ...


@runtime_checkable
class Cleanable(Protocol):
    """A backend that keeps what nobody may see any more until it is told to delete it; schedulers do."""

    async def clean(self, limit: int) -> int:
        """Delete at most *limit* results whose time to live is over; returns how many there were."""
        ...
