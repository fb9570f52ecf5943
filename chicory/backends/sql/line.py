"""The connection that one call uses in its thread, and who cuts it when the call takes too long."""

import contextlib
import os
import socket
import sqlite3
import threading
from collections.abc import Generator
from typing import Any

import trio

# Seconds a call may take, and what it still has when its caller has gone: an answer is mostly under way, and a cut
# connection costs a new one.
PATIENCE = 5.0
GRACE = 1.0


class Line:
    """One call's hold on a connection.  The thread holds and lets go, the trio side waits and cuts."""

    def __init__(self) -> None:
        self.was_cut = False
        self._ended = trio.Event()
        self._driver: Any = None
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def holding(self, driver: Any) -> Generator[None]:
        """*driver*, a connection of a driver, is in use; in the thread."""
        with self._lock:
            self._driver = driver
        try:
            yield
        finally:
            # Under the lock, so that none is cut that somebody else has got meanwhile.
            with self._lock:
                self._driver = None

    def ended(self) -> None:
        """The thread is done."""
        self._ended.set()

    async def guard(self) -> None:
        """Wait for the end; cut the connection when it does not come, or when the caller does not wait for it."""
        try:
            with trio.move_on_after(PATIENCE):
                await self._ended.wait()
        finally:
            # Again and again, because what only connected when it was to be cut goes on afterwards.
            while not self._ended.is_set():
                with trio.move_on_after(GRACE, shield=True) as scope:
                    await self._ended.wait()
                if scope.cancelled_caught:
                    self._cut()

    def _cut(self) -> None:
        with self._lock:
            if self._driver is None:
                return  # it connects, and has a timeout for that
            self.was_cut = True
            if isinstance(self._driver, sqlite3.Connection):
                self._driver.interrupt()
            elif hasattr(self._driver, "fileno"):
                shut(self._driver.fileno())
            # PyMySQL shows no socket, and has timeouts instead.


def shut(descriptor: int) -> None:
    """End the conversation on a socket that another thread is reading: that one hears that it is over."""
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as line:
        line.shutdown(socket.SHUT_RDWR)
