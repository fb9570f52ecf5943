"""One server per state directory, whatever was killed before."""

import contextlib
import fcntl
import json
import os
import signal
from pathlib import Path
from typing import Any

_SIZE = 200


class StateLock:
    """An exclusive hold on a state directory, shared with the server process by inheritance.

    Two servers appending to one file destroy it.  The hold is a `flock`, which the kernel drops with the last process
    that inherited it: nothing a kill -9 leaves behind needs cleaning, and nothing is taken before the old server has
    really gone.  The file's text says who holds it.
    """

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._asked: int | None = None

    def take(self) -> bool:
        """Take the directory if nobody holds it.  An orphaned holder is asked to go; one that has its daemon is not."""
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = self.holder()
            shim = holder.get("shim")
            if holder.get("orphaned") and isinstance(shim, int) and shim != self._asked:
                self._asked = shim
                with contextlib.suppress(ProcessLookupError):  # it went by itself
                    os.kill(shim, signal.SIGTERM)
            return False
        self.note(shim=os.getpid())
        return True

    def note(self, **facts: Any) -> None:
        """Say who holds the directory."""
        text = json.dumps(facts).encode()
        os.pwrite(self.fd, text.ljust(_SIZE), 0)

    def holder(self) -> dict[str, Any]:
        """What the holder last said of itself."""
        try:
            return json.loads(os.pread(self.fd, _SIZE, 0))
        except ValueError:
            return {}  # it has not written yet
