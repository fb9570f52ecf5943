"""Beats for connections whose event loop stands still: one thread for all of a process, as long as there are any.

A server takes whoever was silent for twice the heartbeat for dead and gives his messages to others; but a task that
forgot to await, or computes, only holds up the loop that beats.  While the loop turns, the thread has nothing to do: it
steps in when a connection has said nothing for longer than the loop ever leaves it.  It does not judge the server.

A loop that never turns again is no secret for long: the server takes back what it holds after its `consumer_timeout`,
and a supervisor ends its process before that.
"""

import os
import threading
import time
from typing import Protocol

# The part of a heartbeat after which a connection is silent for too long; the loop itself beats after half of one.
_SILENT = 3 / 4
_LOOKS = 4


class Beating(Protocol):
    """A connection as this thread sees it."""

    @property
    def heartbeat(self) -> float:
        """Seconds that were agreed on."""
        ...

    @property
    def wrote(self) -> float:
        """When something was sent last, by `time.monotonic`."""
        ...

    def beat(self) -> None:
        """Send a beat, if nothing else is being sent; from any thread."""
        ...


class Pulse:
    """Beats for those who were added."""

    def __init__(self) -> None:
        self.forget_all()

    def forget_all(self) -> None:
        """Begin anew, with nobody to beat for."""
        self._changed = threading.Condition()
        self._members: set[Beating] = set()
        self._thread: threading.Thread | None = None

    def add(self, member: Beating) -> None:
        """Beat for *member* from now on."""
        with self._changed:
            self._members.add(member)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="chicory amqp pulse", daemon=True)
                self._thread.start()
            self._changed.notify()

    def discard(self, member: Beating) -> None:
        """Beat no more for *member*."""
        with self._changed:
            self._members.discard(member)
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._members:
                    self._thread = None
                    return
                self._changed.wait(min(member.heartbeat for member in self._members) / _LOOKS)
                members = tuple(self._members)
            now = time.monotonic()
            for member in members:
                if now - member.wrote > member.heartbeat * _SILENT:
                    member.beat()


pulse = Pulse()
# The thread was not forked along, and the connections are the parent's.
os.register_at_fork(after_in_child=pulse.forget_all)
