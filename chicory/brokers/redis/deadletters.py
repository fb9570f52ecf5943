"""Dead letters in Redis: a stream per queue, read in order and changed one entry at a time."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

from msgspec.structs import replace

from chicory.brokers.redis.keys import UNFINISHED_MS, Keys, ResultKeys
from chicory.brokers.redis.scripts import script
from chicory.links.redis import ServerError
from chicory.links.redis_pool import Pool
from chicory.outcome import afresh
from chicory.types import DLQMessage, TaskMessage
from chicory.wire import pack, unpack

_PAGE = 256


def letter(queue: str, entry: bytes, fields: Sequence[bytes]) -> DLQMessage:
    """The dead letter in one stream entry; never raises."""
    named = dict(zip(fields[::2], fields[1::2], strict=False))

    def text(name: bytes) -> str:
        return named.get(name, b"").decode(errors="replace")

    try:
        failed_at = datetime.fromisoformat(text(b"failed_at"))
    except ValueError:
        failed_at = datetime.fromtimestamp(int(entry.split(b"-")[0]) / 1000, UTC)
    retries = text(b"retry_count")
    return DLQMessage(
        message_id=entry.decode(),
        original_message=unpack(named.get(b"data", b"")),
        failed_at=failed_at,
        error=text(b"error"),
        retry_count=int(retries) if retries.isdigit() else 0,
        queue=queue,
        task_id=text(b"task_id"),
        task_name=text(b"task_name"),
        traceback=text(b"traceback"),
    )


class DeadLetters:
    """The dead letters of one queue."""

    def __init__(
        self,
        pool: Pool,
        keys: Keys,
        *,
        results: ResultKeys | None,
        reopen: Callable[[str], Awaitable[None]] | None,
    ) -> None:
        self._pool = pool
        self._keys = keys
        self._results = results
        self._reopen = reopen

    async def list(self, count: int, start: str) -> list[DLQMessage]:
        """See `Broker.get_dlq_messages`."""
        first = f"({start}" if start else "-"
        entries = await self._pool.call("XRANGE", self._keys.dead, first, "+", "COUNT", count)
        return [letter(self._keys.queue, entry, fields) for entry, fields in entries]

    async def replay(self, message_id: str, *, reset_retries: bool) -> bool:
        """See `Broker.replay_from_dlq`."""
        found = await self._find(message_id)
        if found is None:
            return False
        entry, data = found
        message = unpack(data)
        pending = ""
        unique = ""
        level = 0
        if isinstance(message, TaskMessage):
            again = replace(afresh(message) if reset_retries else message, eta=None)
            level = min(max(message.priority or 0, 0), self._keys.levels - 1)
            if self._results is not None and not message.ignore_result:
                pending = self._results.record + message.id
            if message.unique is not None:
                unique = self._keys.unique(message.unique)
            data = pack(again)
            # Before it is replayed: it may be finished a moment later.
            if self._reopen is not None and not message.ignore_result:
                await self._reopen(message.id)
        task_id = message.id if isinstance(message, TaskMessage) else ""
        keys = [self._keys.dead, self._keys.stream(level), self._keys.counters]
        return bool(await self._run("replay", keys, [entry, data, task_id, pending, UNFINISHED_MS, unique]))

    async def delete(self, message_id: str) -> bool:
        """See `Broker.delete_from_dlq`."""
        found = await self._find(message_id)
        return found is not None and bool(await self._run("forget", [self._keys.dead, self._keys.counters], [found[0]]))

    async def purge(self) -> int:
        """See `Broker.purge_dlq`."""
        return int(await self._run("forget", [self._keys.dead, self._keys.counters], [""]))

    async def _find(self, message_id: str) -> tuple[bytes, bytes] | None:
        """The entry's id and data, by its own id or, walking the stream, by its task's id."""
        entries: list[tuple[bytes, list[bytes]]]
        try:
            entries = await self._pool.call("XRANGE", self._keys.dead, message_id, message_id)
        except ServerError:
            entries = []  # not of the form of an entry's id, so it can only be a task's
        start = "-"
        wanted = message_id.encode()
        while True:
            for entry, fields in entries:
                named = dict(zip(fields[::2], fields[1::2], strict=False))
                if entry == wanted or named.get(b"task_id") == wanted:
                    return entry, named.get(b"data", b"")
            entries = await self._pool.call("XRANGE", self._keys.dead, start, "+", "COUNT", _PAGE)
            if not entries:
                return None
            start = "(" + entries[-1][0].decode()

    async def _run(self, name: str, keys: "Sequence[str]", args: "Sequence[object]") -> int:
        async with self._pool.connection() as connection:
            return await script(name).run(connection, [*keys], [*args], timeout=self._pool.timeout)
