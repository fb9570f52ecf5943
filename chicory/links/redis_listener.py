"""One subscribed connection for all who wait in one run.

There is no background task: one of the waiting callers reads for all, and hands the reading on when it leaves.
"""

import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

import attrs

from chicory.errors import BrokerUnavailable
from chicory.links.executor import Turn
from chicory.links.redis import Connection
from chicory.links.redis_pool import Pool


@attrs.define(eq=False)
class _Ear:
    """One caller listening to one channel.  *turn* is set when there is news, or when it is its turn to read."""

    channel: str
    turn: Turn
    subscribed: bool = False
    told: bool = False


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
    async def listening(self, channel: str) -> AsyncGenerator[Callable[[], Awaitable[None]]]:
        """Listen to *channel*: from here on nothing said is missed.  Call what is given to wait for the first word.

        Raises BrokerUnavailable when the line breaks; what was said meanwhile is not known then.
        """
        ear = _Ear(channel, self._executor.event())
        self._ears[channel].append(ear)
        try:
            connection = await self._ready()
            # An ear that joins others cannot tell whether their subscription has begun; asking again settles it.
            await self._send(connection, "SUBSCRIBE", channel)
            await self._until(ear, connection, lambda: ear.subscribed)
            yield lambda: self._until(ear, connection, lambda: ear.told)
        finally:
            self._ears[channel].remove(ear)
            if not self._ears[channel]:
                del self._ears[channel]
                await self._unsubscribe(channel)
            if not self._reading:
                self._hand_on()

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

    async def _unsubscribe(self, channel: str) -> None:
        connection = self._connection
        if connection is not None and not connection.closed:
            with contextlib.suppress(BrokerUnavailable):
                if not await self._executor.briefly(1, self._send(connection, "UNSUBSCRIBE", channel)):
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
                ear.subscribed = True
            elif kind == b"message":
                ear.told = True
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
