"""What happened, one line each, on standard error."""

import contextlib
import os
import select
import time


class Log:
    """Lines for the operator.  Whoever reads them slowly, or not at all, never holds the daemon up."""

    def __init__(self, fd: int = 2) -> None:
        self._fd = fd
        self._dropped = 0

    def __call__(self, text: str, level: str = "info") -> None:
        """Write *text* as one line, or count it as dropped when the reader does not keep up."""
        if not self._writable():
            self._dropped += 1
            return
        if self._dropped:
            text, self._dropped = f"{text} ({self._dropped} lines before this one were dropped)", 0
        now = time.time()
        # As the logging module of the children has it, since all write to one stream.
        stamp = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(now))},{int(now % 1 * 1000):03}"
        line = f"{stamp} {level.upper()} chicoryd: {' '.join(text.splitlines())}\n".encode(errors="replace")
        # At most PIPE_BUF bytes in one write, so that no other process's line gets into the middle of it.
        with contextlib.suppress(OSError):
            os.write(self._fd, line[: select.PIPE_BUF - 1] + b"\n" if len(line) > select.PIPE_BUF else line)

    def _writable(self) -> bool:
        try:
            return bool(select.select([], [self._fd], [], 0)[1])
        except (OSError, ValueError):
            return False
