"""RESP in a plain thread: the same conversation as on trio, on a socket that blocks."""

import atexit
import socket
import time
from math import inf
from weakref import WeakSet

from chicory.links.redis import Connection, connecting, log_in
from chicory.links.redis_address import Address
from chicory.links.stream import watch
from chicory.links.sync_executor import remaining


class _BlockingStream:
    """A socket that waits no longer than until *due*, nor than its caller may."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.due = inf

    async def send_all(self, data: bytes) -> None:
        self._socket.settimeout(remaining(self.due))
        self._socket.sendall(data)

    async def receive_some(self, size: int) -> bytes:
        while True:
            self._socket.settimeout(remaining(self.due))
            try:
                return self._socket.recv(size)
            except TimeoutError:
                # Whose time is up, and whether it really is, is asked once more.
                continue

    def close(self) -> None:
        self._socket.close()


class SyncConnection(Connection):
    """See Connection; one call at a time may use it."""

    def __init__(self, stream: _BlockingStream, address: Address) -> None:
        super().__init__(stream, address)
        self._blocking = stream
        _open.add(self)

    def _set_alarm(self, timeout: float) -> None:
        self._blocking.due = time.monotonic() + timeout

    async def send(self, *command: object) -> None:
        """See Connection; the caller's own patience is the only limit, here and in `receive`."""
        self._blocking.due = inf
        await super().send(*command)

    async def receive(self) -> object:
        """See Connection."""
        self._blocking.due = inf
        return await super().receive()

    def __del__(self) -> None:
        self.close()


# Closed at exit: a socket that is still open then would be reported as forgotten.
_open: WeakSet[SyncConnection] = WeakSet()


@atexit.register
def _close_all() -> None:
    for connection in list(_open):
        connection.close()


async def connect(address: Address, *, timeout: float, name: str = "chicory") -> Connection:
    """See `links.redis.connect`."""
    with connecting(address, timeout) as made:
        made.append(connection := SyncConnection(_open_stream(address, timeout), address))
        await log_in(connection, name, timeout)
        return connection


def _open_stream(address: Address, timeout: float) -> _BlockingStream:
    patience = remaining(time.monotonic() + timeout)
    if address.path is not None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(patience)
            sock.connect(address.path)
        except BaseException:
            sock.close()
            raise
        return _BlockingStream(sock)
    sock = socket.create_connection((address.host, address.port), patience)
    try:
        watch(sock)
        if address.tls is not None:
            sock = address.tls.wrap_socket(sock, server_hostname=address.host)
    except BaseException:
        sock.close()
        raise
    return _BlockingStream(sock)
