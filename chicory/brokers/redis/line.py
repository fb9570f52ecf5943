"""One connection for short calls, opened when needed and opened again when it broke."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from chicory.errors import BrokerUnavailable
from chicory.links.redis import Connection, ServerError
from chicory.links.redis_pool import Pool

T = TypeVar("T")
Conversation = Callable[[Connection], Awaitable[T]]


class Line:
    """Whoever needs the line waits for his turn."""

    def __init__(self, pool: Pool, *, opened: Conversation[None] | None = None) -> None:
        self._pool = pool
        self._opened = opened
        self._connection: Connection | None = None
        self._turn = trio.Lock()

    async def talk(self, conversation: Conversation[T]) -> T:
        """What *conversation* returns.  Raises BrokerUnavailable when the line breaks; the next talk reopens it."""
        async with self._turn:
            return await conversation(await self._ready())

    async def insist(self, conversation: Conversation[T]) -> T:
        """Like `talk`, and once more on a new connection when the line breaks.

        Only for what the server recognises when it sees it twice.
        """
        async with self._turn:
            try:
                return await conversation(await self._ready())
            except BrokerUnavailable:
                return await conversation(await self._ready())

    async def mention(self, conversation: Conversation[object]) -> None:
        """Like `talk`, where it does no harm if the server does not hear of it or objects."""
        try:
            await self.talk(conversation)
        except (BrokerUnavailable, ServerError):
            await trio.lowlevel.checkpoint()

    async def _ready(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = None
            connection = await self._pool.open()
            if self._opened is not None:
                await self._opened(connection)
            self._connection = connection
        return self._connection

    def close(self) -> None:
        """Close at once."""
        if self._connection is not None:
            self._connection.close()
