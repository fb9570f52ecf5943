"""What SQLite is told on each connection, and how its transactions begin."""

import math
import os
import sqlite3
import threading
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, event

READING = "chicory_reading"

# The releases that mend the WAL-reset bug, which may lose what was committed when two connections meet at a
# checkpoint; https://sqlite.org/wal.html#walresetbug
_MENDED = (3, 51, 3)
_BACKPORTS = {(3, 44): 6, (3, 50): 7}

# Each engine's gate: closed to forks while it is in use, and the other way round.
_gates: WeakKeyDictionary[Engine, threading.Lock] = WeakKeyDictionary()
_held: list[threading.Lock] = []


def journal_mode(version: tuple[int, ...]) -> str:
    """WAL, in which readers and the writer do not wait for each other, where this build keeps it safely."""
    major, minor, patch = version[:3]
    safe = version >= _MENDED or patch >= _BACKPORTS.get((major, minor), math.inf)
    return "WAL" if safe else "DELETE"


def create_private(path: str) -> None:
    """Make the file for its owner alone, when it is not there.

    An existing one is never opened here: closing it would take away the locks of this process's connections.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError:
        return  # it exists, or SQLite says better why it cannot


def prepare(engine: Engine) -> None:
    """Have *engine* set up its connections, and begin writing transactions as what they are."""

    @event.listens_for(engine, "connect")
    def connect(driver: Any, record: object) -> None:
        driver.execute(f"PRAGMA journal_mode={journal_mode(sqlite3.sqlite_version_info)}")
        driver.execute("PRAGMA synchronous=FULL")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads first and writes then is refused at once when another has written meanwhile.
        if not connection.get_execution_options().get(READING):
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    _ = connect, begin


def gate(engine: Engine) -> threading.Lock:
    """What is to be held while *engine* is in use, so that nobody forks meanwhile.

    SQLite keeps in the process's memory which files it has locked.  A child that found its parent's file open there
    would take it for its own: locked for ever in the midst of a transaction, and not locked at all in WAL mode.
    """
    return _gates.setdefault(engine, threading.Lock())


def _before_fork() -> None:
    # A list that is made in one step, because other threads may be adding some.
    for reference in _gates.keyrefs():
        if (engine := reference()) is not None:
            lock = _gates[engine]
            lock.acquire()
            _held.append(lock)
            engine.dispose()


def _after_fork() -> None:
    while _held:
        _held.pop().release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
