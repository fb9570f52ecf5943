"""The supervisor's end of a child's lifeline: JSON lines over a socketpair, never waited for."""

import array
import json
import socket
from collections.abc import Callable
from typing import cast

from chicoryd.events import Message

_CHUNK = 65536
_READS = 16  # at a time, so that one chatty child does not keep the others waiting
_LONGEST = 1 << 20  # bytes of a line; a child that says more has lost its mind, and the line is dropped


def as_message(line: bytes) -> Message | None:
    """The message in *line*, None for what is not one: a task may have written into a socket it does not own."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("Message", message) if isinstance(message, dict) else None


def as_text(line: bytes) -> Message | None:
    """What a child prints that does not know of lifelines."""
    return {"t": "said", "text": line.decode(errors="replace")}


class Line:
    """What is said to one child, and what it says."""

    def __init__(self, sock: socket.socket, parse: Callable[[bytes], Message | None] = as_message) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.closed = False  # by the other side
        self._parse = parse
        self._heard = b""
        self._unsent = b""

    @property
    def waiting(self) -> bool:
        """Whether words are left that the child has not taken yet: flush() when the socket is writable."""
        return bool(self._unsent) and not self.closed

    def say(self, message: Message) -> None:
        """Send *message* now, or as soon as the child takes it.  Nothing said is lost, or `stop` could be."""
        self._unsent += _packed(message)
        self.flush()

    def hand(self, message: Message, descriptor: int) -> None:
        """Send *message* with an open file, at once or not at all: OSError when it cannot be."""
        if self._unsent:
            raise BlockingIOError(0, "it does not listen")
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        self.socket.sendmsg([_packed(message)], rights)  # the system takes so few bytes whole

    def flush(self) -> None:
        """Send what is waiting, as far as it goes."""
        try:
            while self._unsent:
                self._unsent = self._unsent[self.socket.send(self._unsent) :]
        except BlockingIOError:
            return
        except OSError:  # hung up; hear() will find out
            self._unsent = b""

    def hear(self) -> list[Message]:
        """What the child has said since."""
        for _ in range(_READS):
            try:
                data = self.socket.recv(_CHUNK)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.closed = True
                break
            self._heard += data
        *lines, rest = self._heard.split(b"\n")
        self._heard = rest if len(rest) <= _LONGEST else b""
        return [message for line in lines if (message := self._parse(line)) is not None]

    def close(self) -> None:
        """Hang up.  A child that still lives then leaves by itself."""
        self.socket.close()


def _packed(message: Message) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"
