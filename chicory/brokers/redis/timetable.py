"""Which slots of which schedules are over, in Redis."""

from collections.abc import Callable, Sequence
from typing import Any

from chicory.brokers.redis.keys import UNFINISHED_MS, Keys, ResultKeys
from chicory.brokers.redis.scripts import script
from chicory.brokers.redis.uniques import holding
from chicory.errors import QueueFull
from chicory.links.redis_pool import Pool
from chicory.schedules.entry import NOTED_EVERY, RETENTION, Entry, Known, Look
from chicory.types import TaskMessage
from chicory.wire import pack

_MAX = 256


class RedisTimetable:
    """See `brokers.base.Timetable`.

    keys_of: the keys of a queue by its name.  level: the priority level of a message.  limit: of a stream's length.
    """

    def __init__(
        self,
        pool: Pool,
        keys_of: Callable[[str], Keys],
        level: Callable[[TaskMessage], int],
        *,
        limit: int | None,
        results: ResultKeys | None,
    ) -> None:
        self._pool = pool
        self._keys_of = keys_of
        self._level = level
        self._limit = limit
        self._results = results

    async def look(self, entries: Sequence[Entry], *, begin: bool = True) -> Look:
        """See `Timetable.look`."""
        # In a cluster each queue has marks of its own.
        places: dict[str, list[Entry]] = {}
        for entry in entries:
            places.setdefault(self._keys_of(entry.queue).schedules, []).append(entry)
        if not places:
            places[self._keys_of("default").schedules] = []
        now, fields = 0.0, dict[bytes, bytes]()
        for key, found in places.items():
            for start in range(0, max(1, len(found)), _MAX):
                named = found[start : start + _MAX] if begin else []
                words = [word for entry in named for word in (entry.name, entry.definition)]
                stamp, reply = await self._run("look", [key], [RETENTION, NOTED_EVERY, *words])
                now = float(stamp)
                fields |= zip(reply[::2], reply[1::2], strict=True)
        return Look(now, _known({field.decode(): value.decode() for field, value in fields.items()}))

    async def fire(self, entry: Entry, slot: float, message: TaskMessage) -> bool:
        """See `Timetable.fire`."""
        keys = self._keys_of(message.queue)
        noted = self._results is not None and not message.ignore_result
        names = [self._keys_of(entry.queue).schedules, keys.counters, keys.stream(self._level(message))]
        args = [
            entry.name,
            f"{slot:.6f}",
            entry.definition,
            "" if self._limit is None else self._limit,
            f"{self._results.record}{message.id}" if self._results is not None and noted else "",
            UNFINISHED_MS,
            message.id,
            pack(message),
            "" if message.unique is None else holding(keys, message),
        ]
        fired = await self._run("fire", names, args)
        if fired < 0:
            raise QueueFull(message.queue, self._limit or 0)
        return fired == 1

    async def pause(self, entry: Entry) -> bool:
        """See `Timetable.pause`."""
        return await self._pause(entry, "1")

    async def resume(self, entry: Entry) -> bool:
        """See `Timetable.resume`."""
        return await self._pause(entry, "")

    async def _pause(self, entry: Entry, pause: str) -> bool:
        words = [entry.name, pause, entry.definition]
        return await self._run("pause", [self._keys_of(entry.queue).schedules], words) == 1

    async def _run(self, name: str, keys: list[str], args: list[Any]) -> Any:
        async with self._pool.connection() as connection:
            return await script(name).run(connection, keys, args, timeout=self._pool.timeout)


def _known(fields: dict[str, str]) -> dict[str, Known]:
    """By name, what the fields of the hash say."""
    return {
        name: Known(
            fields.get(f"{name}#definition", ""),
            float(mark),
            float(fields[f"{name}#fired"]) if f"{name}#fired" in fields else None,
            f"{name}#paused" in fields,
        )
        for name, mark in fields.items()
        if "#" not in name
    }
