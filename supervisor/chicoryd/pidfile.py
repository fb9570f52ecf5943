"""One daemon per state directory: a lock that the kernel releases, and a file that tells people the pid."""

import contextlib
import fcntl
import os
from pathlib import Path


class AlreadyRunning(Exception):
    """Another daemon holds the state directory."""


class Claim:
    """The hold on a state directory.

    The lock decides: it is gone with the process, whatever kills it, and no pid is ever probed.  The pid file is for
    people, and is written only after the lock is held.
    """

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "chicoryd.pid"
        self._fd = os.open(state_dir / "chicoryd.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._fd)
            holder = self._read()
            who = f"pid {holder}" if holder else "which is just starting"
            raise AlreadyRunning(
                f"another chicoryd, {who}, runs on {state_dir}; stop it, or set another state_dir"
            ) from None

    def write(self) -> None:
        """Write the pid file.  By rename, so that nobody reads half of one."""
        new = self._path.with_suffix(".pid.new")
        try:
            new.write_text(f"{os.getpid()}\n")
            new.rename(self._path)
        except OSError:
            new.unlink(missing_ok=True)
            raise

    def release(self) -> None:
        """Take the pid file away, if it is ours, and let the next daemon in."""
        with contextlib.suppress(OSError):
            if self._read() == os.getpid():
                self._path.unlink()
        os.close(self._fd)

    def _read(self) -> int | None:
        try:
            return int(self._path.read_text())
        except (OSError, ValueError):
            return None
