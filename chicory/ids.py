"""Task ids: time-ordered, so that an id alone says how old its task is."""

import os
import time
from hashlib import blake2b

# The version digit of UUIDv7 (RFC 9562, section 5.7) and its place in the 32 hex digits.
_VERSION = "7"
_VERSION_AT = 12
# One of the four digits the RFC allows there; fixing it costs two of 74 random bits and saves half the time.
_VARIANT = "8"


def new_id() -> str:
    """A fresh id: 32 hex digits laid out as a UUIDv7, milliseconds since the epoch first.

    `uuid.UUID(new_id())` works; the hex form is what travels because it is three times cheaper to make.
    """
    return _id(time.time_ns() // 1_000_000, os.urandom(10).hex())


def slot_id(schedule: str, slot: float) -> str:
    """The id of what *schedule* sends for *slot*, in unix seconds: the same whoever makes it, and whenever."""
    return _id(round(slot * 1000), blake2b(f"{schedule} {slot:.3f}".encode(), digest_size=10).hexdigest())


def _id(milliseconds: int, digits: str) -> str:
    return f"{milliseconds:012x}{_VERSION}{digits[:3]}{_VARIANT}{digits[4:19]}"


def born(task_id: str) -> float | None:
    """When *task_id* was made, in unix seconds by its maker's clock; None when it was not made by `new_id`."""
    if len(task_id) != 32 or task_id[_VERSION_AT] != _VERSION:
        return None
    try:
        int(task_id, 16)
    except ValueError:
        return None
    return int(task_id[:12], 16) / 1000
