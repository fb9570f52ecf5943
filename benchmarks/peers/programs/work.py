"""What a task of any queue does, and what it leaves behind.

A run is counted by one record that the task itself appends to a file: a single write of a fixed size in append mode,
which is whole or not there, survives kill -9, and costs every queue the same microsecond.

Everything here is of the standard library, because each queue has an environment of its own.
"""

import os
import struct
import time
from collections.abc import Awaitable, Callable

# number, process, whether it begins or ends, nanoseconds of the clock that all processes of a machine share.
RECORD = struct.Struct("<IIIxxxxQ")
STARTED, ENDED = 0, 1
# The number of a task that only shows that workers work.
PROBE = 0xFFFF_FFFF

SLEEP = 0.01
_SPIN_NS = 1_000_000

# What a run is told, in its environment.
BROKER = os.environ.get("PEER_BROKER", "")
REDIS = os.environ.get("PEER_REDIS", "")
RESULTS = os.environ.get("PEER_RESULTS") == "1"
PROCESSES = int(os.environ.get("PEER_PROCESSES", "1"))
# Whether tasks mostly wait, so that many of them at once are worth having.
WAITING = os.environ.get("PEER_WAITING") == "1"
# Whether tasks may be due later, for which some queues need a process more.
DELAYS = os.environ.get("PEER_DELAYS") == "1"
# A directory of this run alone.
DIRECTORY = os.environ.get("PEER_DIRECTORY", "")
_JOURNAL = os.environ.get("PEER_JOURNAL", "")

# After how many seconds of silence a worker is taken for dead, where a queue lets one say so.  Shorter than any queue's
# default but our own, whose is 30 s.
RECOVERY = 10

_file: int | None = None


def work(kind: str, number: int) -> None:
    """Do it in this thread."""
    if kind == "held":
        _note(number, STARTED)
    if kind in ("sleep", "held"):
        time.sleep(SLEEP)
    elif kind == "spin":
        spin()
    _note(number, ENDED)


async def work_async(kind: str, number: int, sleep: Callable[[float], Awaitable[object]]) -> None:
    """Do it on an event loop that has *sleep*."""
    if kind == "held":
        _note(number, STARTED)
    if kind in ("sleep", "held"):
        await sleep(SLEEP)
    elif kind == "spin":
        spin()
    _note(number, ENDED)


def spin() -> None:
    """Use a millisecond of this thread's CPU time, however busy the machine is."""
    until = time.thread_time_ns() + _SPIN_NS
    while time.thread_time_ns() < until:
        pass


def _note(number: int, event: int) -> None:
    global _file
    if _file is None:
        # Kept over a fork: in append mode writers do not need to agree where the end is.
        _file = os.open(_JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(_file, RECORD.pack(number, os.getpid(), event, time.monotonic_ns()))
