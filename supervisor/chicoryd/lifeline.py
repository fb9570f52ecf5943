"""The supervisor's end of a child's lifeline: JSON lines over a socketpair, never waited for."""

import json
import socket
from typing import cast

from chicoryd.events import Message

_CHUNK = 65536
_READS = 16  # at a time, so that one chatty child does not keep the others waiting
_LONGEST = 1 << 20  # bytes of a line; a child that says more has lost its mind, and the line is dropped


class Line:
    """What is said to one child, and what it says."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.closed = False  # by the other side
        self._heard = b""
        self._unsent = b""

    @property
    def waiting(self) -> bool:
        """Whether words are left that the child has not taken yet: flush() when the socket is writable."""
        return bool(self._unsent) and not self.closed

    def say(self, message: Message) -> None:
        """Send *message* now, or as soon as the child takes it.  Nothing said is lost, or `stop` could be."""
        self._unsent += json.dumps(message, separators=(",", ":")).encode() + b"\n"
        self.flush()

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
        return [message for line in lines if (message := _parse(line)) is not None]

    def close(self) -> None:
        """Hang up.  A child that still lives then leaves by itself."""
        self.socket.close()


def _parse(line: bytes) -> Message | None:
    """The message in *line*, None for what is not one: a task may have written into a socket it does not own."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return cast("Message", message) if isinstance(message, dict) else None
