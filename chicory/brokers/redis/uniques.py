"""Unique keys as the scripts take them.  Pure."""

from typing import assert_never

from chicory.brokers.base import Delivery, Settlement
from chicory.brokers.redis.keys import UNFINISHED_MS, Keys
from chicory.outcome import Dead, Done, Failed, Release, RetryIn
from chicory.types import TaskMessage, Undecodable


def holding(keys: Keys, message: TaskMessage) -> str:
    """For publish.lua: how long the window of *message* is, in ms, and what holds its key."""
    assert message.unique is not None
    return f"{(message.unique_window or 0) * 1000:.0f} {keys.unique(message.unique)}"


def acknowledging(delivery: Delivery) -> tuple[str, ...]:
    """For settle.lua: what becomes of the key of what is acknowledged before its run.

    It is let go then: if the worker died, nobody would hear of the end.
    """
    return _said(delivery, "window")


def settling(settlement: Settlement) -> tuple[str, ...]:
    """For settle.lua: what becomes of the key of what is settled."""
    match settlement.outcome:
        case Done():
            return _said(settlement.delivery, "window")
        case Failed() | Dead():
            return _said(settlement.delivery, "free")
        case RetryIn(delay):
            return _said(settlement.delivery, f"{UNFINISHED_MS + delay * 1000:.0f}")
        case Release():
            return ()
        case _:
            assert_never(settlement.outcome)


def _said(delivery: Delivery, becomes: str) -> tuple[str, ...]:
    message = delivery.message
    if isinstance(message, Undecodable) or message.unique is None or delivery.acked:
        return ()
    return message.unique, message.id, becomes
