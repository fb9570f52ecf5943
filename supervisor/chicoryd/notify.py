"""Datagrams to the service manager, as in sd_notify(3)."""

import contextlib
import os
import socket
from collections.abc import Mapping


def watchdog(environ: Mapping[str, str]) -> float | None:
    """Seconds between two signs of life, half of what the service manager allows; None when it wants none."""
    limit, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not limit.isdecimal() or int(limit) == 0 or (pid and pid != str(os.getpid())):
        return None
    return int(limit) / 2e6


class Notifier:
    """Where NOTIFY_SOCKET says; silent when it says nothing."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # A leading @ stands for the NUL of an abstract socket.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if address else None
        if self._socket is not None:
            self._socket.setblocking(False)

    def send(self, text: str) -> None:
        """Send *text*, such as READY=1.  A manager that has gone or is busy does not delay the daemon."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto(text.encode(), self._address)

    def close(self) -> None:
        """Give the socket back."""
        if self._socket is not None:
            self._socket.close()
