"""A byte stream to a server: TCP, TLS or a unix socket."""

import contextlib
import socket
import ssl
from typing import Protocol

import trio

# A peer that vanished without a word is noticed within this many seconds (idle, and with bytes on the way).
_SILENCE = 15


class Stream(Protocol):
    """What a connection needs of its line.  One task may send while another receives; `close` ends both."""

    async def send_all(self, data: bytes) -> None: ...
    async def receive_some(self, size: int) -> bytes: ...
    def close(self) -> None: ...


class PlainStream:
    """A socket with one suspension a round trip: sends go out at once, reads wait first.

    trio.SocketStream adds a checkpoint to each, which is a third of a round trip on loopback.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    async def send_all(self, data: bytes) -> None:
        view = memoryview(data)
        while True:
            with contextlib.suppress(BlockingIOError):
                view = view[self._socket.send(view) :]
            if not view:
                return
            await trio.lowlevel.wait_writable(self._socket)

    async def receive_some(self, size: int) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return self._socket.recv(size)
            except BlockingIOError:
                continue

    def close(self) -> None:
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()


class TLSStream:
    """A socket with TLS on it."""

    def __init__(self, stream: "trio.SSLStream[trio.SocketStream]") -> None:
        self._stream = stream

    async def send_all(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def receive_some(self, size: int) -> bytes:
        return bytes(await self._stream.receive_some(size))

    def close(self) -> None:
        self._stream.transport_stream.socket.close()


async def open_stream(host: str, port: int, *, path: str | None = None, tls: ssl.SSLContext | None = None) -> Stream:
    """A stream to *path*, a unix socket, or else to *port* of *host*; with *tls* the handshake is done."""
    if path is not None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.connect(path)
            await trio.lowlevel.checkpoint()
        except BaseException:
            sock.close()
            raise
        return PlainStream(sock)
    stream = await trio.open_tcp_stream(host, port)
    watch(stream.socket)
    if tls is not None:
        secure = trio.SSLStream(stream, tls, server_hostname=host)
        try:
            await secure.do_handshake()
        except BaseException:
            stream.socket.close()
            raise
        return TLSStream(secure)
    sock = socket.socket(fileno=stream.socket.detach())
    sock.setblocking(False)
    return PlainStream(sock)


def watch(sock: trio.socket.SocketType | socket.socket) -> None:
    """Ask the kernel to notice a dead peer."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", _SILENCE // 3),
        ("TCP_KEEPINTVL", _SILENCE // 5),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", _SILENCE * 1000),
    ):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
