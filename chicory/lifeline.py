"""A child's end of its lifeline to chicoryd: JSON lines over an inherited socket.

    async with lifeline_from_env() as line:
        line.send("ready")
        async for message in line:      # {"t": "stop"}, ...; ends when chicoryd has gone
            ...

Without chicoryd the same code runs: nothing is sent, and nothing is ever heard.
"""

import contextlib
import json
import os
import socket
from collections import deque
from collections.abc import AsyncGenerator, MutableMapping
from typing import Any, cast

import trio

__all__ = ["Lifeline", "lifeline_from_env"]

Message = dict[str, Any]

_CHUNK = 65536


class Lifeline:
    """What is said to chicoryd, and what it says.  One task listens; any may speak.

    name: the consumer's name that chicoryd chose for this incarnation, never used again; None without chicoryd.
    """

    def __init__(self, sock: socket.socket | None, name: str | None = None) -> None:
        self.name = name
        self._sock = sock
        self._unsent = b""
        self._heard = b""
        self._lines = deque[bytes]()
        if sock is not None:
            sock.setblocking(False)

    @property
    def supervised(self) -> bool:
        """Whether there is a chicoryd at all."""
        return self._sock is not None

    @property
    def descriptor(self) -> int | None:
        """Of the socket, for whoever wants to see its end without reading it."""
        return None if self._sock is None else self._sock.fileno()

    def send(self, kind: str, **facts: Any) -> bool:
        """Tell chicoryd; False when it was dropped, because chicoryd has gone or does not keep up.

        Never waits: a supervisor that hangs must not hold up the work.
        """
        if self._sock is None or not self._flush():
            return False
        self._unsent = json.dumps({"t": kind, **facts}, separators=(",", ":")).encode() + b"\n"
        before = len(self._unsent)
        self._flush()
        if len(self._unsent) == before:
            self._unsent = b""
            return False
        # Of a line that went out in part the rest must follow, or chicoryd could not read any line after it.
        return True

    def __aiter__(self) -> "Lifeline":
        return self

    async def __anext__(self) -> Message:
        """The next message.  They end when chicoryd has gone: then finish what runs, and leave."""
        while True:
            while self._lines:
                if (message := _parse(self._lines.popleft())) is not None:
                    return message
            data = await self._receive()
            if not data:
                raise StopAsyncIteration
            *lines, self._heard = (self._heard + data).split(b"\n")
            self._lines.extend(lines)

    def close(self) -> None:
        """Send the rest of a line, if it can go at once, and hang up."""
        if self._sock is not None:
            self._flush()
            self._sock.close()

    async def _receive(self) -> bytes:
        sock = self._sock
        while sock is None:
            await trio.sleep_forever()
        while True:
            await trio.lowlevel.wait_readable(sock.fileno())
            try:
                return sock.recv(_CHUNK)
            except BlockingIOError:
                continue
            except OSError:  # a reset: chicoryd died with lines of ours unread
                return b""

    def _flush(self) -> bool:
        """Send what is waiting; True when nothing waits any more."""
        assert self._sock is not None
        while self._unsent:
            try:
                self._unsent = self._unsent[self._sock.send(self._unsent) :]
            except OSError:  # full, or hung up; whoever listens is told of the latter
                return False
        return True


@contextlib.asynccontextmanager
async def lifeline_from_env(environ: MutableMapping[str, str] = os.environ) -> AsyncGenerator[Lifeline]:
    """The lifeline that chicoryd gave this process, or a silent one when it was started by hand.

    Takes CHICORYD_LIFELINE and CHICORYD_NAME out of *environ*, so that no process started by a task thinks it is
    supervised, and closes the socket to them.
    """
    number, name = environ.pop("CHICORYD_LIFELINE", None), environ.pop("CHICORYD_NAME", None)
    sock = None
    if number is not None:
        sock = socket.socket(fileno=int(number))
        sock.set_inheritable(False)
    line = Lifeline(sock, name)
    try:
        yield line
    finally:
        line.close()


def _parse(line: bytes) -> Message | None:
    """The message in *line*; None for one of a newer chicoryd that is not understood."""
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return cast("Message", message) if isinstance(message, dict) and "t" in message else None
