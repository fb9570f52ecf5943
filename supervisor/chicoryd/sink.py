"""Where the log goes, standard error or a file: never waited for, never a reason to fail."""

import contextlib
import fcntl
import os
import select
import socket
import stat
import sys
import time
from collections.abc import Sequence
from pathlib import Path

LIMIT = select.PIPE_BUF  # bytes of one write that no other process's line gets into the middle of

_LOOK = 1.0  # seconds between two looks at whether the file is still the one of that name
_ROOM = 1 << 20  # bytes that a pipe should hold, so that a burst is not lost on a reader that is merely slow
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Sink:
    """Takes records and writes each of their chunks, whole lines of at most LIMIT bytes, at once or not at all.

    path: the file, opened with the first record and followed when it is moved; None is the descriptor *fd*.
    """

    def __init__(self, path: Path | None = None, fd: int = 2) -> None:
        self._path = path
        self._fd = -1
        self._socket: socket.socket | None = None
        self._asks_first = False
        self._failed = False  # the last write, so that a part of it may be there
        self._gone = ""  # why there is no file any more
        self._look_at = float("-inf")
        if path is None:
            with contextlib.suppress(OSError):  # where it is closed, nothing can be written
                self._inherit(fd)

    def put(self, chunks: Sequence[bytes]) -> str:
        """Write one record; why it, or the rest of it, was dropped, or nothing."""
        try:
            self._follow()
            if self._failed and self._mid_line():
                self._write(b"\n")
            for chunk in chunks:
                self._write(chunk)
        except BlockingIOError:
            why = "the reader does not keep up"
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error) or repr(error)
        else:
            why = ""
        self._failed = bool(why)
        return why

    def reopen(self) -> str:
        """Open the file of that name anew, or why that cannot be done; then what was open stays so.

        May be called at any time, by a signal handler and beside `put` too.
        """
        if self._path is None:
            return ""
        try:
            fd = os.open(self._path, _FLAGS | os.O_CREAT, 0o640)
        except OSError as error:
            why = error.strerror or str(error)
            # One that was moved away is still good to write to, one that was deleted is not.
            self._gone = "" if self._linked() else why
            return why
        if self._fd < 0:
            self._fd = fd
        else:
            os.dup2(fd, self._fd, inheritable=False)  # in one step, whoever is just writing
            os.close(fd)
        self._gone = ""
        return ""

    def close(self) -> None:
        """Write no more; the descriptor that was inherited stays open."""
        if self._socket is not None:
            self._socket.close()
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _inherit(self, fd: int) -> None:
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
        elif stat.S_ISREG(mode):
            self._fd = os.dup(fd)
        else:
            # A flag that were set on the descriptor itself would hold for all who share it.
            try:
                self._fd = os.open(f"/proc/self/fd/{fd}", _FLAGS)
            except OSError:  # it is another user's, or has no reader yet
                self._fd = os.dup(fd)
                self._asks_first = True
            if sys.platform == "linux" and stat.S_ISFIFO(mode):
                fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, _ROOM)

    def _write(self, chunk: bytes) -> None:
        if self._asks_first and not select.select([], [self._fd], [], 0)[1]:
            raise BlockingIOError
        while chunk:  # of a full disk the first write may take a part, and the second says why
            if self._socket is not None:
                sent = self._socket.send(chunk, socket.MSG_DONTWAIT)
            else:
                sent = os.write(self._fd, chunk)
            chunk = chunk[sent:]

    def _follow(self) -> None:
        """Be sure, once in a while, that the file is the one of that name: it may have been moved away or deleted."""
        if self._path is not None and (now := time.monotonic()) >= self._look_at:
            self._look_at = now + _LOOK
            if not self._same():
                self.reopen()
        if self._gone:
            raise OSError(0, self._gone)

    def _same(self) -> bool:
        assert self._path is not None
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except OSError:
            return False

    def _linked(self) -> bool:
        try:
            return os.fstat(self._fd).st_nlink > 0
        except OSError:
            return False

    def _mid_line(self) -> bool:
        """Whether the file ends in a part of a line: this process's, or another's that found the disk full."""
        try:
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                return False
            with open(f"/proc/self/fd/{self._fd}", "rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read(1) != b"\n"
        except OSError:
            return False


def say(text: str) -> None:
    """Write *text* to standard error, now or not at all: for those who have no log, or whose last word it is."""
    sink = Sink()
    sink.put([line.encode(errors="replace")[: LIMIT - 1] + b"\n" for line in text.splitlines()])
    sink.close()
