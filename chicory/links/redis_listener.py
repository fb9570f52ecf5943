"""One subscribed connection for all who wait in one run.

There is no background task: one of the waiting callers reads for all, and hands the reading on when it leaves.
"""

import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import cast

import attrs

from chicory.errors import BrokerUnavailable
from chicory.links.executor import Turn
from chicory.links.redis import Connection
from chicory.links.redis_pool import Pool


@attrs.define(eq=False)
class _Ear:
    """One caller listening to some channels.

    turn: set when there is news, or when it is its turn to read.  silent: those whose subscription has not begun.
    told: those on which something was said.
    """

    channels: Collection[str]
    turn: Turn
    silent: set[str] = attrs.field(init=False)
    told: set[str] = attrs.field(factory=set[str])

    def __attrs_post_init__(self) -> None:
        self.silent = set(self.channels)


class Listener:
    """Tells callers what is said on the channels they listen to.

    It listens to *presence* all the time, first of all: so a speaker can ask the server whether anybody is there.
    """

    def __init__(self, pool: Pool, *, presence: str) -> None:
        self._pool = pool
        self._presence = presence
        self._connection: Connection | None = None
        self._ears: defaultdict[str, list[_Ear]] = defaultdict(list)
        self._reading = False
        self._executor = pool.executor
        self._sending = pool.executor.lock()

    @asynccontextmanager
    async def listening(self, channels: Collection[str]) -> AsyncGenerator[Callable[[], Awaitable[set[str]]]]:
        """Listen to *channels*: from here on nothing said is missed.

        Call what is given to wait for news: it returns the channels on which something was said since the last call.
        Raises BrokerUnavailable when the line breaks; what was said meanwhile is not known then.
        """
        ear = _Ear(channels, self._executor.event())
        for channel in channels:
            self._ears[channel].append(ear)
        try:
            connection = await self._ready()
            # An ear that joins others cannot tell whether their subscription has begun; asking again settles it.
            await self._send(connection, "SUBSCRIBE", *channels)
            await self._until(ear, connection, lambda: not ear.silent)
            yield lambda: self._news(ear, connection)
        finally:
            left = [channel for channel in channels if self._leave(channel, ear)]
            if left:
                await self._unsubscribe(left)
            if not self._reading:
                self._hand_on()

    async def _news(self, ear: _Ear, connection: Connection) -> set[str]:
        await self._until(ear, connection, lambda: bool(ear.told))
        told, ear.told = ear.told, set()
        return told

    def _leave(self, channel: str, ear: _Ear) -> bool:
        """Whether nobody else listens to *channel*."""
        self._ears[channel].remove(ear)
        if self._ears[channel]:
            return False
        del self._ears[channel]
        return True

    async def _ready(self) -> Connection:
        async with self._sending:
            if self._connection is None or self._connection.closed:
                self._connection = None
                connection = await self._pool.open()
                await connection.send("SUBSCRIBE", self._presence)
                self._connection = connection
            return self._connection

    async def _send(self, connection: Connection, *command: str) -> None:
        async with self._sending:
            await connection.send(*command)

    async def _unsubscribe(self, channels: Collection[str]) -> None:
        connection = self._connection
        if connection is not None and not connection.closed:
            with contextlib.suppress(BrokerUnavailable):
                if not await self._executor.briefly(1, self._send(connection, "UNSUBSCRIBE", *channels)):
                    connection.close()

    async def _until(self, ear: _Ear, connection: Connection, heard: Callable[[], bool]) -> None:
        while not heard():
            if self._connection is not connection or connection.closed:
                raise BrokerUnavailable(f"{connection.address}: the line broke while waiting")
            if self._reading:
                await ear.turn.wait()
                ear.turn = self._executor.event()
                continue
            self._reading = True
            try:
                self._dispatch(await connection.receive())
            finally:
                self._reading = False
                if connection.closed:
                    self._wake_all()
                elif heard():
                    self._hand_on()

    def _dispatch(self, message: object) -> None:
        if not isinstance(message, list):
            return
        kind, name, *_ = cast("list[bytes]", message)
        channel = name.decode()
        for ear in self._ears.get(channel, ()):
            if kind == b"subscribe":
                ear.silent.discard(channel)
                if ear.silent:
                    continue
            elif kind == b"message":
                ear.told.add(channel)
            ear.turn.set()

    def _hand_on(self) -> None:
        for ears in self._ears.values():
            for ear in ears:
                ear.turn.set()
                return

    def _wake_all(self) -> None:
        for ears in self._ears.values():
            for ear in ears:
                ear.turn.set()

    def close(self) -> None:
        """Close the connection; whoever waits is told that the line broke."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._wake_all()
