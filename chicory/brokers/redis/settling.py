"""Outcomes as the arguments of settle.lua.  Pure."""

from typing import Any, assert_never

from chicory.brokers.base import Settlement
from chicory.outcome import Dead, Done, Failed, Release, RetryIn
from chicory.types import TaskMessage
from chicory.wire import pack


def encode(settlement: Settlement, failed_at: str) -> tuple[Any, ...]:
    """What settle.lua takes for one item; *failed_at* is the instant to write on a dead letter."""
    delivery = settlement.delivery
    message = delivery.message
    task_id = message.id if isinstance(message, TaskMessage) else ""
    record = settlement.record or b""
    match settlement.outcome:
        case Done():
            return ("done", task_id, record)
        case Failed():
            return ("failed", task_id, record)
        case Dead(failure):
            retries = message.retries if isinstance(message, TaskMessage) else 0
            name = message.name if isinstance(message, TaskMessage) else ""
            data = _data(delivery.message)
            return ("dead", task_id, record, data, failed_at, str(failure), retries, name, failure.traceback)
        case RetryIn(delay, again, _):
            return ("retry", task_id, record, pack(again), f"{delay:.6f}")
        case Release(why, charged):
            spent = delivery.count if charged else delivery.count - 1
            return ("release", task_id, _data(message), spent, why if charged else delivery.cause)
        case _:
            assert_never(settlement.outcome)


def _data(message: Any) -> bytes:
    return pack(message) if isinstance(message, TaskMessage) else message.raw
