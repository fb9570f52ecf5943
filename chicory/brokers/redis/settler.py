"""Settling deliveries in Redis: batches with numbers, each carried out once however often it must be sent."""

from collections.abc import Sequence
from typing import Any

import attrs
import msgspec
import trio

from chicory.brokers.redis.keys import SESSION_MS, UNFINISHED_MS, CancelKeys, Keys, ResultKeys
from chicory.brokers.redis.line import Line
from chicory.brokers.redis.reading import Receipt
from chicory.brokers.redis.scripts import script

_MAX = 256
# What settle.lua says of an item that was carried out: the byte "1".
_HELD = ord("1")


class Item(msgspec.Struct, frozen=True, gc=False):
    """One delivery to settle: its arguments for settle.lua, and whether its entry is still pending.

    unique: of one that has a unique key, the key, the task's id, and what becomes of the key; else empty.
    """

    receipt: Receipt
    queue: str
    arguments: tuple[Any, ...]
    pending: bool
    unique: tuple[str, ...] = ()


@attrs.frozen(eq=False)
class _Call:
    """One call of settle.lua and whose deliveries it settles."""

    receipts: list[Receipt]
    keys: list[str]
    args: list[Any]


class Settler:
    """Settles for one consumer.

    A call whose answer got lost stays in doubt; it is sent again, under its number, before anything else is settled, so
    an answer of "no longer ours" is never our own doing.
    """

    def __init__(
        self,
        line: Line,
        queues: Sequence[Keys],
        *,
        name: str,
        group: str,
        timeout: float,
        dlq_max_length: int | None,
        results: ResultKeys | None,
        cancels: CancelKeys,
    ) -> None:
        self._line = line
        self._keys = {keys.queue: keys for keys in queues}
        self._name = name
        self._timeout = timeout
        self._number = 0
        self._doubtful: list[_Call] = []
        self._answers: dict[Receipt, bool] = {}
        self._turn = trio.Lock()
        self._settings: tuple[Any, ...] = (
            "" if results is None else results.record,
            "" if results is None else results.done,
            1 if results is None else results.ttl_ms,
            UNFINISHED_MS,
            "" if dlq_max_length is None else dlq_max_length,
            "" if results is None else results.waiting,
        )
        self._group = group
        self._cancelled = [] if cancels.cluster else [cancels.cancelled]

    async def settle(self, items: Sequence[Item]) -> list[bool]:
        """For each item whether it was still ours and is carried out now.

        Raises BrokerUnavailable when no answer came; calling again with the same items finds out.
        """
        async with self._turn:
            for call in tuple(self._doubtful):
                await self._carry_out(call)
            streams: dict[str, list[Item]] = {}
            for item in items:
                if item.receipt not in self._answers:
                    streams.setdefault(item.receipt.stream, []).append(item)
            for waiting in streams.values():
                # The script wants those with a pending entry first.
                waiting.sort(key=_acknowledged)
                for start in range(0, len(waiting), _MAX):
                    call = self._call(waiting[start : start + _MAX])
                    self._doubtful.append(call)
                    await self._carry_out(call)
            return [self._answers.pop(item.receipt) for item in items]

    async def _carry_out(self, call: _Call) -> None:
        settle = script("settle")
        reply = await self._line.insist(
            lambda connection: settle.run(connection, call.keys, call.args, timeout=self._timeout)
        )
        self._doubtful.remove(call)
        for receipt, answer in zip(call.receipts, reply, strict=True):
            self._answers[receipt] = answer == _HELD

    def _call(self, items: list[Item]) -> _Call:
        keys = self._keys[items[0].queue]
        level = items[0].receipt.level
        pending = [item.receipt.entry for item in items if item.pending]
        self._number += 1
        args: list[Any] = [self._number, SESSION_MS, self._group, keys.wake, *self._settings, len(pending), *pending]
        for item in items:
            args += item.arguments
        for place, item in enumerate(items, 1):
            if item.unique:
                key, task_id, becomes = item.unique
                args += ("unique", place, keys.unique(key), task_id, becomes)
        names = [keys.settled(self._name, level), keys.counters, keys.stream(level), keys.delayed(level), keys.dead]
        names += self._cancelled
        return _Call([item.receipt for item in items], names, args)


def _acknowledged(item: Item) -> bool:
    return not item.pending
