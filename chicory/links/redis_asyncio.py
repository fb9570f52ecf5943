"""RESP in an asyncio loop: the same conversation as on trio, on asyncio's streams."""

import asyncio
import contextlib
from math import inf

from chicory.links.redis import Connection, connecting, log_in
from chicory.links.redis_address import Address
from chicory.links.stream import watch


class _AsyncioStream:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send_all(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def receive_some(self, size: int) -> bytes:
        return await self._reader.read(size)

    def close(self) -> None:
        # A loop that is closed has forgotten the socket already.
        with contextlib.suppress(RuntimeError):
            self._writer.transport.abort()


class AsyncioConnection(Connection):
    """See Connection; it belongs to one loop."""

    _timer: asyncio.TimerHandle | None = None

    def _set_alarm(self, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time() + timeout
        if self._due < self._looks_at:
            self._look_at(self._due, loop)

    def _look_at(self, when: float, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._looks_at = when
        self._timer = None if when == inf else loop.call_at(when, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop.time() >= self._due:
            self._rang = True
            self.close()
        else:
            self._look_at(self._due, loop)

    def close(self) -> None:
        """Close at once; nothing is sent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().close()


async def connect(address: Address, *, timeout: float, name: str = "chicory") -> Connection:
    """See `links.redis.connect`."""
    with connecting(address, timeout) as made:
        async with asyncio.timeout(timeout):
            made.append(connection := AsyncioConnection(await _open_stream(address), address))
            await log_in(connection, name, timeout)
            return connection


async def _open_stream(address: Address) -> _AsyncioStream:
    if address.path is not None:
        return _AsyncioStream(*await asyncio.open_unix_connection(address.path))
    server_name = None if address.tls is None else address.host
    reader, writer = await asyncio.open_connection(
        address.host, address.port, ssl=address.tls, server_hostname=server_name
    )
    watch(writer.get_extra_info("socket"))
    return _AsyncioStream(reader, writer)
