"""The shim's end of its lifeline to chicoryd, and of the signals: one thing to wait on, without an event loop."""

import contextlib
import json
import os
import select
import signal
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple


class Heard(NamedTuple):
    """What came in while waiting.

    stop: chicoryd or a signal asked for the end.  orphaned: chicoryd has gone.
    """

    stop: bool = False
    orphaned: bool = False


class Line:
    """Signals, and JSON lines over the socket whose number is in CHICORYD_LIFELINE; without one, signals alone."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        number = environ.get("CHICORYD_LIFELINE")
        self._chicoryd = socket.socket(fileno=int(number)) if number else None
        self._unread = b""
        self._stopped = False
        self._woken, wake = socket.socketpair()
        for end in (self._woken, wake):
            end.setblocking(False)
        self._wake = wake
        if self._chicoryd is not None:
            self._chicoryd.setblocking(False)
            os.set_inheritable(self._chicoryd.fileno(), False)
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for chicoryd
        else:
            signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGCHLD, _wake)  # so that a wait ends when the server does
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)

    def _stop(self, *_: object) -> None:
        self._stopped = True

    def send(self, kind: str, **facts: Any) -> None:
        """Tell chicoryd, if it is there and listens; it is never waited for."""
        if self._chicoryd is None:
            return
        # It may have gone, which the next wait says, or its buffer may be full of older news.
        with contextlib.suppress(OSError):
            self._chicoryd.send(json.dumps({"t": kind, **facts}).encode() + b"\n")

    def wait(self, seconds: float) -> Heard:
        """Wait until something is heard, a child ends or *seconds* are over."""
        sources = [self._woken] if self._chicoryd is None else [self._woken, self._chicoryd]
        ready, _, _ = select.select(sources, [], [], seconds)
        if self._woken in ready:
            self._woken.recv(4096)
        orphaned = self._chicoryd in ready and not self._read()
        return Heard(stop=self._stopped, orphaned=orphaned)

    def _read(self) -> bool:
        """Take what chicoryd sent; False when it has gone."""
        assert self._chicoryd is not None
        try:
            data = self._chicoryd.recv(65536)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if not data:
            self._chicoryd.close()
            self._chicoryd = None
            return False
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            if _kind(line) == "stop":
                self._stopped = True
        return True


def _wake(*_: object) -> None:
    """A signal that has a handler writes to the wakeup socket; that is all it has to do."""


def _kind(line: bytes) -> str:
    try:
        return str(json.loads(line)["t"])
    except (ValueError, TypeError, KeyError):
        return ""  # of a newer chicoryd; what is not understood is not for a server
