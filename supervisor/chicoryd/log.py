"""What happened, for the operator: chicoryd's own lines, and those of each process that asks for a Log."""

import os
import time
from pathlib import Path
from typing import Any

from chicoryd.layout import LAYOUTS, Entry
from chicoryd.sink import Sink


class Log:
    """Entries on standard error, or in *file*.  Whoever reads them slowly, or not at all, never holds a process up.

    What could not be written is counted, and told as soon as something can be.
    """

    def __init__(self, layout: str = "console", file: Path | None = None, *, consumer: str = "", fd: int = 2) -> None:
        self._layout = LAYOUTS[layout]
        self._file = file
        self._consumer = consumer
        self._sink = Sink(file, fd)
        self._dropped = 0
        self._why = ""  # the last one was

    def __call__(self, text: str, level: str = "info") -> None:
        """Write *text* as a line of chicoryd's own."""
        self.write(self.entry("chicoryd", text, level.upper()))

    def entry(self, logger: str, message: str, level: str, **more: Any) -> Entry:
        """What *logger* of this process says."""
        facts: dict[str, Any] = {"at": time.time(), "pid": os.getpid(), "consumer": self._consumer, **more}
        return Entry(logger=logger, message=message, level=level, **facts)

    def write(self, entry: Entry) -> None:
        """Write *entry*, or count it as dropped."""
        self.flush()
        if not self._dropped:
            self._why = self._sink.put(self._layout(entry))
        if self._why:
            self._dropped += 1

    def flush(self) -> None:
        """Tell how many entries were dropped, if any were and that can be told now."""
        if not self._dropped:
            return
        told = f"lines dropped before this one: {self._dropped} ({self._why})"
        self._why = self._sink.put(self._layout(self.entry("chicoryd.log", told, "WARNING")))
        if not self._why:
            self._dropped = 0

    def problem(self) -> str:
        """Why the file cannot be opened, in one line that says what to do; empty when it can, and now is."""
        why = self._sink.reopen()
        return f"log.file: cannot open {self._file}: {why}; set it to a file that this user may write" if why else ""

    def reopen(self) -> None:
        """Go on in the file that has the name now.  Where there is none, the one that was moved away will do."""
        if problem := self.problem():
            self.write(self.entry("chicoryd.log", problem, "WARNING"))
