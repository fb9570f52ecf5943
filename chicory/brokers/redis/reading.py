"""What Redis returns for streams, read into deliveries; and in which order streams are emptied.  Pure."""

from collections.abc import Sequence
from typing import Any

import msgspec

from chicory.brokers.base import Delivery
from chicory.types import Undecodable
from chicory.wire import unpack

# Every so many fetches the least urgent level goes first, so that it moves even when the others never run dry.
_FAIRNESS = 8


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """Where a delivery came from: the stream and the entry's id in it."""

    stream: str
    level: int
    entry: bytes


class Source(msgspec.Struct, frozen=True):
    """One stream: a level of a queue."""

    stream: str
    queue: str
    level: int


def delivery(source: Source, entry: bytes, fields: Sequence[bytes]) -> Delivery:
    """The delivery of one stream entry; never raises."""
    receipt = Receipt(source.stream, source.level, entry)
    # What `publish` wrote: data, its bytes, task_id, the id.
    if len(fields) == 4 and fields[0] == b"data":
        return Delivery(unpack(fields[1]), source.queue, receipt, raw=fields[1])
    named = dict(zip(fields[::2], fields[1::2], strict=False))
    data = named.get(b"data")
    if data is None:
        message = Undecodable(b" ".join(fields)[:4096], "the stream entry has no field 'data'")
    else:
        message = unpack(data)
    try:
        count = max(0, int(named.get(b"deliveries", b"0"))) + 1
    except ValueError:
        count = 1
    cause = named.get(b"cause", b"").decode(errors="replace")
    return Delivery(message, source.queue, receipt, count, cause=cause, raw=data or b"")


def deliveries(sources: dict[bytes, Source], reply: Any) -> list[Delivery]:
    """The deliveries in a reply to XREADGROUP."""
    found: list[Delivery] = []
    for stream, entries in reply or ():
        source = sources[stream]
        found += [delivery(source, entry, fields) for entry, fields in entries]
    return found


def order(queues: Sequence[Sequence[Source]], turn: int) -> list[Source]:
    """The streams in the order in which fetch number *turn* empties them.

    *queues* holds each queue's sources, the most urgent level first.  Levels come before queues, and queues of one
    level take turns, so neither a full queue nor a full level starves the rest.
    """
    if not queues:
        return []
    first = turn % len(queues)
    rotated = [*queues[first:], *queues[:first]]
    levels = max(len(sources) for sources in rotated)
    ordered = [sources[level] for level in range(levels) for sources in rotated if level < len(sources)]
    return ordered[::-1] if levels > 1 and turn % _FAIRNESS == _FAIRNESS - 1 else ordered
