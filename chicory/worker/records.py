"""What tasks in child processes tell the log, on its way to the log of their worker."""

import logging
import os
import traceback
from collections.abc import Callable
from typing import final

import msgspec


class Record(msgspec.Struct, frozen=True):
    """A logging.LogRecord as it travels.  details: its exception and its stack, as text."""

    name: str
    level: int
    message: str
    created: float
    path: str
    line: int
    details: str | None = None


@final
class Sender(logging.Handler):
    """In a child: hands records to *send*, in any thread."""

    def __init__(self, send: Callable[[Record], None]) -> None:
        super().__init__()
        self._send = send
        # What a process that the task has forked says would get into the middle of what is said here.
        os.register_at_fork(after_in_child=lambda: logging.getLogger().removeHandler(self))

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        try:
            exc = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
            details = exc + (record.stack_info or "")
            self._send(
                Record(
                    name=_clean(record.name),
                    level=record.levelno,
                    message=_clean(record.getMessage()),
                    created=record.created,
                    path=_clean(record.pathname),
                    line=record.lineno,
                    details=_clean(details) or None,
                )
            )
        except Exception:
            self.handleError(record)


def tell(record: Record, pid: int) -> None:
    """In the worker: log *record* of process *pid*, as if it had been made here."""
    logger = logging.getLogger(record.name)
    if not logger.isEnabledFor(record.level):
        return
    made = logger.makeRecord(
        record.name, record.level, record.path, record.line, record.message, (), None, sinfo=record.details
    )
    made.created, made.process = record.created, pid
    logger.handle(made)


def _clean(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
