"""A bad network between a client and its server: slow, cut, silent, or losing exactly the reply that matters."""

import socket
import struct
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import hiredis
import trio

Address = tuple[str, int] | str
Command = list[bytes]


class Proxy:
    """What the network does, for all connections through it; change it at any time.

    latency: seconds that each chunk takes, either way.
    one_byte: chunks of one byte.
    refusing: new connections are reset at once.
    resp: whether commands and replies are told apart, for `swallow`; otherwise it is AMQP, with its frames.
    """

    def __init__(self, upstream: Address, *, resp: bool = True) -> None:
        self.upstream = upstream
        self.resp = resp
        self.latency = 0.0
        self.one_byte = False
        self.refusing = False
        self.url = ""
        self.address: Address = ""
        self.accepted = 0
        self._links: set[_Link] = set()
        self._swallowing: list[tuple[Callable[[Command], bool], trio.Event]] = []
        self._left_down: int | None = None
        # How many frames still pass towards the server before every client is gone, and whom to tell.
        self._left_up: tuple[int, trio.Event] | None = None
        self._up_open, self._down_open = trio.Event(), trio.Event()
        self.heal()

    def blackhole(self, *, up: bool = True, down: bool = True) -> None:
        """Pass nothing on, and tell nobody: no connection ends by it.  What was sent meanwhile arrives after `heal`."""
        if up:
            self._up_open = trio.Event()
        if down:
            self._down_open = trio.Event()

    def heal(self) -> None:
        self.refusing = False
        self._left_up = None
        self._up_open.set()
        self._down_open.set()

    @property
    def crashed(self) -> bool:
        """Whether what `crash_after` announced has happened."""
        return self._left_up is not None and self._left_up[1].is_set()

    def reset(self) -> int:
        """Reset every open connection; returns how many there were."""
        for link in (links := list(self._links)):
            link.reset()
        return len(links)

    def cut_after(self, count: int) -> None:
        """Pass *count* more bytes towards clients, then reset the connection that carries the next one."""
        self._left_down = count

    def crash_after(self, count: int) -> trio.Event:
        """Pass *count* more frames towards the server, of all connections; the next is that of a client that is killed.

        So what was sent arrives, then the end of every connection, and nobody comes back; the event tells that it has
        happened.  `heal` lets clients in again.
        """
        self._left_up = (count, trio.Event())
        return self._left_up[1]

    def swallow(self, command: str | Callable[[Command], bool]) -> trio.Event:
        """Let the next such command through, lose its reply, and reset; the event tells that this has happened.

        *command*: a name like "XADD", or a predicate on the command's words, e.g. for one script among EVALSHAs.
        """
        done = trio.Event()
        if callable(command):
            matches = command
        else:
            name = command.upper().encode()

            def matches(words: Command) -> bool:
                return words[0].upper() == name

        self._swallowing.append((matches, done))
        return done

    async def emptied(self) -> None:
        """Wait until no connection is left, and every server has read what was sent on its one."""
        while self._links:
            await trio.sleep(0.001)

    async def serve(self, listener: trio.abc.Listener[trio.SocketStream]) -> None:
        await trio.serve_listeners(self._connect, [listener])

    async def _connect(self, client: trio.SocketStream) -> None:
        self.accepted += 1
        if self.refusing:
            _reset(client)
            return
        try:
            server = await (
                trio.open_unix_socket(self.upstream)
                if isinstance(self.upstream, str)
                else trio.open_tcp_stream(*self.upstream)
            )
        except OSError:
            _reset(client)
            return
        link = _Link(self, client, server)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)
            link.reset()


class _Link:
    """One connection through the proxy, both directions."""

    def __init__(self, proxy: Proxy, client: trio.SocketStream, server: trio.SocketStream) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._commands = hiredis.Reader()
        self._replies = hiredis.Reader()
        self._owed = 0
        # How many replies still pass before the one to lose, and whom to tell.
        self._doomed: tuple[int, trio.Event] | None = None
        self._broken = False
        self._frames = _Frames()
        self._hung_up = False
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, self._client, self._server, self._up, lambda: self._proxy._up_open)
                nursery.start_soon(self._pump, self._server, self._client, self._down, lambda: self._proxy._down_open)

    def reset(self) -> None:
        self._scope.cancel()
        for stream in (self._client, self._server):
            _reset(stream)

    def hang_up(self) -> None:
        """End it as the kernel does for a client that was killed."""
        self._hung_up = True
        _reset(self._client)
        with suppress(OSError):
            self._server.socket.shutdown(socket.SHUT_WR)

    async def _pump(
        self,
        source: trio.SocketStream,
        target: trio.SocketStream,
        passes: Callable[[bytes], bytes],
        way: Callable[[], trio.Event],
    ) -> None:
        try:
            while chunk := await source.receive_some(65536):
                if self._proxy.latency:
                    await trio.sleep(self._proxy.latency)
                await way().wait()
                passed = passes(chunk)
                if self._hung_up:
                    # Until the server has closed its side too, having read all there was.
                    continue
                step = 1 if self._proxy.one_byte else max(len(passed), 1)
                for start in range(0, len(passed), step):
                    await target.send_all(passed[start : start + step])
                if self._proxy.crashed:
                    for link in list(self._proxy._links):
                        link.hang_up()
                if self._broken:
                    break
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        if source is self._server or not self._hung_up:
            self.reset()

    def _up(self, chunk: bytes) -> bytes:
        """The part of *chunk* that goes to the server."""
        if self._doomed is not None:
            # The connection is as good as gone: what comes after that command never arrives.
            return b""
        if not self._proxy.resp:
            return self._before_the_crash(chunk)
        for end, words in _parsed(self._commands, chunk, exactly=bool(self._proxy._swallowing)):
            self._owed += 1
            for item in self._proxy._swallowing:
                if isinstance(words, list) and item[0](words):
                    self._proxy._swallowing.remove(item)
                    self._doomed = (self._owed, item[1])
                    return chunk[:end]
        return chunk

    def _before_the_crash(self, chunk: bytes) -> bytes:
        ends = self._frames.ends(chunk)
        if self._proxy._left_up is None or self._proxy.crashed:
            return chunk
        left, crashed = self._proxy._left_up
        if len(ends) <= left:
            self._proxy._left_up = left - len(ends), crashed
            return chunk
        self._proxy.refusing = True
        crashed.set()
        return chunk[: ends[left - 1]] if left else b""

    def _down(self, chunk: bytes) -> bytes:
        """The part of *chunk* that goes to the client."""
        passed = len(chunk)
        start = 0
        replies = _parsed(self._replies, chunk, exactly=self._doomed is not None) if self._proxy.resp else []
        for end, reply in replies:
            if isinstance(reply, hiredis.PushNotification):
                continue
            self._owed -= 1
            if self._doomed is not None:
                left, done = self._doomed
                self._doomed = (left - 1, done)
                if left == 1:
                    # A reply that began in an earlier chunk is lost in its last part: no reply either way.
                    passed, self._broken = start, True
                    done.set()
                    break
            start = end
        left_down = self._proxy._left_down
        if left_down is not None:
            if passed > left_down:
                passed, self._broken, self._proxy._left_down = left_down, True, None
            else:
                self._proxy._left_down = left_down - passed
        return chunk[:passed]


class _Frames:
    """Where the frames of AMQP end that go one way, however they are cut."""

    def __init__(self) -> None:
        self._rest = b""
        self._greeted = False

    def ends(self, chunk: bytes) -> list[int]:
        """The places in *chunk* where a frame is complete; what a client says first counts as one."""
        before, buffer = len(self._rest), self._rest + chunk
        found, at = [], 0
        while True:
            end = at + (8 if not self._greeted else 8 + int.from_bytes(buffer[at + 3 : at + 7], "big"))
            if len(buffer) < max(end, at + 8):
                break
            self._greeted = True
            found.append(end - before)
            at = end
        self._rest = buffer[at:]
        return found


def _parsed(reader: hiredis.Reader, chunk: bytes, *, exactly: bool) -> list[tuple[int, Any]]:
    """What is complete with *chunk*, each with the place where it ends (the chunk's end, if not *exactly*)."""
    found: list[tuple[int, Any]] = []
    fed = 0
    while fed < len(chunk):
        # Everything in RESP ends with a newline, so no two things end within one of these pieces.
        newline = chunk.find(b"\n", fed) if exactly else -1
        end = len(chunk) if newline < 0 else newline + 1
        reader.feed(chunk[fed:end])
        while (item := reader.gets()) is not False:
            found.append((end, item))
        fed = end
    return found


def _reset(stream: trio.SocketStream) -> None:
    """Close with RST where there is such a thing."""
    if stream.socket.fileno() >= 0:
        if stream.socket.family != socket.AF_UNIX:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.socket.close()


@asynccontextmanager
async def open_proxy(upstream: Address, *, unix: Path | None = None, resp: bool = True) -> AsyncGenerator[Proxy, None]:
    """A proxy in front of *upstream* (`Server.address`), on a free port or on the socket *unix*."""
    proxy = Proxy(upstream, resp=resp)
    if unix is None:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        proxy.url, proxy.address = f"redis://127.0.0.1:{port}/0", ("127.0.0.1", port)
    else:
        plain = trio.socket.socket(trio.socket.AF_UNIX)
        await plain.bind(str(unix))
        plain.listen(128)
        listener = trio.SocketListener(plain)
        proxy.url, proxy.address = f"unix://{unix}", str(unix)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(proxy.serve, listener)
        yield proxy
        nursery.cancel_scope.cancel()
