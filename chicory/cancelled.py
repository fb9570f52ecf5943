"""What is settled of cancelled tasks, where the broker itself cannot see which they are.  Pure."""

from collections.abc import Collection, Sequence

from msgspec.structs import replace

from chicory.brokers.base import Settlement
from chicory.outcome import Failed, Release
from chicory.types import Failure, ResultRecord, TaskState, Undecodable
from chicory.wire import pack_record

_CANCELLED = Failure("TaskCancelled", "it was cancelled before its end was settled")


def as_cancelled(settlements: Sequence[Settlement], cancelled: Collection[str], now: float) -> Sequence[Settlement]:
    """*settlements* as they are carried out: those of *cancelled* tasks as failed, unless they are given back."""
    return [_as_cancelled(one, cancelled, now) for one in settlements] if cancelled else settlements


def _as_cancelled(settlement: Settlement, cancelled: Collection[str], now: float) -> Settlement:
    message, outcome = settlement.delivery.message, settlement.outcome
    if isinstance(message, Undecodable) or message.id not in cancelled or isinstance(outcome, Release):
        return settlement
    if isinstance(outcome, Failed) and outcome.state is TaskState.CANCELLED:
        return settlement
    record = None if settlement.record is None else pack_record(ResultRecord(TaskState.CANCELLED, finished_at=now))
    return replace(settlement, outcome=Failed(_CANCELLED, TaskState.CANCELLED), record=record)
