"""The log of a process of Chicory's: what the logging module is told goes where chicoryd's own lines go."""

import logging
import os
import signal
import traceback
from pathlib import Path

import attrs

from chicory.config import ChicoryConfig
from chicory.errors import ConfigError
from chicoryd.log import Log


def start_logging(config: ChicoryConfig) -> None:
    """Log as the settings say; ConfigError when the log file cannot be opened by a process that was started by hand.

    Under chicoryd that is no reason not to work: chicoryd has opened it before, and a disk may become full.
    """
    name = os.environ.get("CHICORYD_NAME", "")
    log = Log(config.log.format, Path(config.log.file) if config.log.file else None, consumer=name)
    if "CHICORYD_LIFELINE" not in os.environ and (problem := log.problem()):
        raise ConfigError(problem)
    logging.basicConfig(level=config.worker.log_level, handlers=[Journal(log)])
    if signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
        signal.signal(signal.SIGUSR1, reopen_log)


def reopen_log(*_: object) -> None:
    """Go on in the log file that has the name now."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, Journal):
            handler.log.reopen()


@attrs.frozen
class Report:
    """A message of several lines, of which the first says it all: the others are *details* that nobody could forge."""

    message: str
    details: str

    def __str__(self) -> str:
        return f"{self.message}\n{self.details}"


class Journal(logging.Handler):
    """Hands records to *log*."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write *record*; of one that cannot be formatted, where it came from."""
        details = exc = ""
        try:
            if isinstance(record.msg, Report):
                message, details = record.msg.message, record.msg.details
            else:
                message = record.getMessage()
            if record.exc_info:
                exc = "".join(traceback.format_exception(*record.exc_info))
            if record.stack_info:
                details = record.stack_info
        except Exception:
            message = f"a record of {record.pathname}, line {record.lineno}, cannot be formatted"
            exc = traceback.format_exc()
        self.log.write(
            self.log.entry(record.name, message, record.levelname, at=record.created, detail=details, exc=exc)
        )

    def flush(self) -> None:
        """Tell what was dropped; at exit it is the last chance."""
        self.log.flush()
