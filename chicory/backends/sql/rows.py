"""Between records and rows.  Pure."""

from collections.abc import Collection, Mapping, Sequence

import attrs

from chicory.backends.base import StoredRecord
from chicory.ids import born
from chicory.types import LAST_STEP, ResultRecord, TaskState
from chicory.wire import unpack_record


@attrs.frozen
class Row:
    """A record and how far it says its task is."""

    task_id: str
    step: int
    record: bytes

    @property
    def finished(self) -> bool:
        """Whether nothing will replace it."""
        return self.step == LAST_STEP


def furthest(records: Sequence[StoredRecord]) -> list[Row]:
    """One row a task, the one that would be left of several; in order of ids, so that no two batches wait crosswise."""
    rows: dict[str, Row] = {}
    for kept in records:
        row = Row(kept.task_id, unpack_record(kept.record).step, kept.record)
        there = rows.get(kept.task_id)
        if there is None or (not there.finished and there.step <= row.step):
            rows[kept.task_id] = row
    return [rows[task_id] for task_id in sorted(rows)]


def known(
    task_ids: Collection[str], found: Sequence[tuple[str, bytes, bool]], *, ttl: float, now: float
) -> Mapping[str, ResultRecord]:
    """What *found*, rows of id, record and whether its time is over, says of each of *task_ids*."""
    records = {
        task_id: ResultRecord(TaskState.EXPIRED) if over else unpack_record(bytes(record))
        for task_id, record, over in found
    }
    return {task_id: records.get(task_id) or _missing(task_id, ttl, now) for task_id in task_ids}


def _missing(task_id: str, ttl: float, now: float) -> ResultRecord:
    # The id says when it was made, so what is gone can be told from what never was.
    made = born(task_id)
    old = made is not None and made + ttl < now
    return ResultRecord(TaskState.EXPIRED if old else TaskState.UNKNOWN)
