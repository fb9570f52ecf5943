"""A byte stream to a server: TCP, TLS or a unix socket."""

import contextlib
import os
import socket
import ssl
import threading
from typing import Protocol
from weakref import WeakSet

import trio

# A peer that vanished without a word is noticed within this many seconds (idle, and with bytes on the way).
_SILENCE = 15
_CHUNK = 64 * 1024


class Stream(Protocol):
    """What a connection needs of its line.  One task may send while another receives; `close` ends both."""

    async def send_all(self, data: bytes) -> None: ...
    async def receive_some(self, size: int) -> bytes: ...
    def close(self) -> None: ...


class ThreadedStream(Stream, Protocol):
    """One on which another thread may send too."""

    def interject(self, data: bytes) -> bool:
        """Send a few bytes at once, from any thread, unless something else is being sent; whether it was done."""
        ...


class PlainStream:
    """A socket with one suspension a round trip: sends go out at once, reads wait first.

    trio.SocketStream adds a checkpoint to each, which is a third of a round trip on loopback.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._sending = threading.Lock()
        # What was interjected and did not go out whole.
        self._rest = b""
        self._closing = threading.Lock()
        _open.add(self)

    async def send_all(self, data: bytes) -> None:
        with self._sending:
            view = memoryview(self._rest + data if self._rest else data)
            self._rest = b""
            while True:
                with contextlib.suppress(BlockingIOError):
                    view = view[self._socket.send(view) :]
                if not view:
                    return
                await trio.lowlevel.wait_writable(self._socket)

    def interject(self, data: bytes) -> bool:
        # A socket that is closed meanwhile might be another's when the bytes go out.
        with self._closing:
            if not self._sending.acquire(blocking=False):
                return False
            try:
                self._rest += data
                with contextlib.suppress(BlockingIOError):
                    self._rest = self._rest[self._socket.send(self._rest) :]
            except OSError:
                return False
            finally:
                self._sending.release()
            return True

    async def receive_some(self, size: int) -> bytes:
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return self._socket.recv(size)
            except BlockingIOError:
                continue

    def close(self) -> None:
        trio.lowlevel.notify_closing(self._socket)
        with self._closing:
            self._socket.close()

    def abandon(self) -> None:
        """Close this process's copy; the conversation is another one's."""
        self._socket.close()


_open: WeakSet[PlainStream] = WeakSet()


def _abandon_all() -> None:
    for stream in list(_open):
        stream.abandon()


# The run that would read was not forked along, and a copy in a child keeps a connection open which the parent closes.
os.register_at_fork(after_in_child=_abandon_all)


class TLSStream:
    """TLS on a plain stream.

    trio.SSLStream belongs to its event loop; here another thread may come in between whole records.
    """

    def __init__(self, plain: PlainStream, context: ssl.SSLContext, host: str) -> None:
        self._plain = plain
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._coming, self._going, server_hostname=host)
        self._mutex = threading.Lock()
        # Who takes records out sends them before anybody takes more: tasks wait for each other, threads give up.
        self._turn = trio.Lock()
        self._sending = threading.Lock()

    async def do_handshake(self) -> None:
        """Agree on a key; ssl.SSLError when the other side is not who it should be."""
        while not self._agreed():
            await self._flush()
            self._feed(await self._plain.receive_some(_CHUNK))
        await self._flush()

    def _agreed(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        except ssl.SSLError as error:
            with contextlib.suppress(OSError):
                # The other side is to learn why.
                self._plain.interject(self._going.read())
            raise error
        return True

    def _feed(self, data: bytes) -> None:
        if data:
            self._coming.write(data)
        else:
            self._coming.write_eof()

    async def send_all(self, data: bytes) -> None:
        with self._mutex:
            self._tls.write(data)
        await self._flush()

    async def _flush(self) -> None:
        """Send what is ready to go."""
        async with self._turn:
            with self._sending:
                with self._mutex:
                    data = self._going.read()
                if data:
                    await self._plain.send_all(data)

    async def receive_some(self, size: int) -> bytes:
        while True:
            with self._mutex:
                try:
                    return self._tls.read(size)
                except ssl.SSLWantReadError:
                    pass
                except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                    return b""
            if self._going.pending:
                await self._flush()
            self._feed(await self._plain.receive_some(_CHUNK))

    def interject(self, data: bytes) -> bool:
        if not self._sending.acquire(blocking=False):
            return False
        try:
            with self._mutex:
                self._tls.write(data)
                data = self._going.read()
            # Its record is numbered: what does not go out now is kept by the plain stream, to go before all others.
            return self._plain.interject(data)
        finally:
            self._sending.release()

    def close(self) -> None:
        self._plain.close()


async def open_stream(
    host: str, port: int, *, path: str | None = None, tls: ssl.SSLContext | None = None
) -> ThreadedStream:
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
    sock = socket.socket(fileno=stream.socket.detach())
    sock.setblocking(False)
    plain = PlainStream(sock)
    if tls is None:
        return plain
    try:
        secure = TLSStream(plain, tls, host)
        await secure.do_handshake()
    except BaseException:
        plain.close()
        raise
    return secure


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
