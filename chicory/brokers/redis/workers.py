"""The list of workers in Redis: what each wrote down with its last heartbeat, as long as its lease lasts."""

from collections.abc import Callable
from typing import Any

import msgspec

from chicory.brokers.redis.keys import Keys
from chicory.errors import BrokerError
from chicory.links.redis import Connection
from chicory.types import WorkerInfo

encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(WorkerInfo).decode


async def listed(
    connection: Connection, workers: str, keys_of: Callable[[str], Keys], *, timeout: float
) -> list[WorkerInfo]:
    """Those in the hash *workers* whose lease is not over, by name."""
    entries: list[bytes] = await connection.call("HGETALL", workers, timeout=timeout)
    known = [_decode(entry) for entry in entries[1::2]]
    commands: list[tuple[Any, ...]] = [("ZSCORE", keys_of(one.queues[0]).leases, one.name) for one in known]
    *ends, now = await connection.pipeline([*commands, ("TIME",)], timeout=timeout)
    for reply in (*ends, now):
        if isinstance(reply, BrokerError):
            raise reply
    milliseconds = int(now[0]) * 1000 + int(now[1]) // 1000
    alive = [one for one, end in zip(known, ends, strict=True) if end is not None and float(end) > milliseconds]
    return sorted(alive, key=lambda one: one.name)
