"""The app that the daemons under test run.  Each run of a task writes into the ledger when it starts and ends."""

import ctypes
import logging
import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress

import trio

from chicory import Chicory, DeliveryMode, RetryPolicy, TaskContext
from chicory.brokers.redis.reader import Reader

BROKEN = os.environ.get("FAULTS_BROKEN", "")


def spoilt():
    """Whether the test wants this process not to start: everybody, or only those who are to run tasks."""
    if not os.path.exists(BROKEN):
        return False
    with open(BROKEN) as file:
        return not file.read() or os.environ.get("CHICORYD_ROLE") not in (None, "check", "scheduler")


def die_if_spoilt():
    """For workers that are forked from a process in which the import went well."""
    if spoilt():
        os._exit(3)


if spoilt():
    raise RuntimeError("this app does not start today")
os.register_at_fork(after_in_child=die_if_spoilt)

app = Chicory(retry_policy=RetryPolicy(max_retries=0))

log = logging.getLogger("tasks")

LEDGER = os.environ.get("FAULTS_LEDGER", os.devnull)
WATCH = os.environ.get("FAULTS_WATCH", "")
# What to add to the seconds since boot for unix time, where this process is told a wrong one.
EPOCH = os.environ.get("FAULTS_EPOCH", "")

_watched = None


def boottime():
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def note(what, context):
    """One line in one write, which the system keeps in one piece however many processes add at once."""
    boot = boottime()
    unix = boot + float(EPOCH) if EPOCH else time.time()
    line = f"{what} {context.task_id} {context.deliveries} {os.getpid()} {boot:.6f} {unix:.6f}\n"
    file = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


def be_watched():
    """Hold a connection to the test, which the kernel closes when this process is dead, whatever it died of.

    Not before the first run: a process that is to fork may have no open socket.
    """
    global _watched
    if WATCH and (_watched is None or _watched[0] != os.getpid()):
        line = socket.socket(socket.AF_UNIX)
        with suppress(OSError):
            line.connect(WATCH)
        _watched = os.getpid(), line


@contextmanager
def noted(context):
    """Note the start, and either the end or that the run was cut short."""
    be_watched()
    note("start", context)
    try:
        yield
    except BaseException:
        note("cut", context)
        raise
    note("end", context)


@app.task(name="work")
async def work(context: TaskContext, seconds: float) -> int:
    with noted(context):
        await trio.sleep(seconds)
    return os.getpid()


@app.task(name="chat")
async def chat(context: TaskContext, seconds: float, lines: int) -> int:
    """As `work`, with much to say."""
    with noted(context):
        for number in range(lines):
            log.info("%s says %d %s", context.task_id, number, "x" * 150)
        await trio.sleep(seconds)
    return os.getpid()


@app.task(name="dig")
def dig(context: TaskContext, seconds: float) -> int:
    """As `work`, in a thread."""
    with noted(context):
        time.sleep(seconds)
    return os.getpid()


@app.task(name="once", delivery_mode=DeliveryMode.AT_MOST_ONCE)
async def once(context: TaskContext, seconds: float) -> int:
    with noted(context):
        await trio.sleep(seconds)
    return os.getpid()


@app.task(name="block")
async def block(context: TaskContext, seconds: float) -> int:
    """Hold the event loop, as code that forgot to await does."""
    with noted(context):
        time.sleep(seconds)
    return os.getpid()


@app.task(name="stall")
async def stall(context: TaskContext) -> int:
    """Hold the event loop of the first worker for good; the second has more luck."""
    with noted(context):
        if context.deliveries == 1:
            time.sleep(600)
    return os.getpid()


@app.task(name="seize")
async def seize(context: TaskContext, microseconds: int) -> int:
    """Hold the interpreter itself, as C code that never lets go of it does."""
    with noted(context):
        ctypes.PyDLL(None).usleep(microseconds)
    return os.getpid()


@app.task(name="eat")
async def eat(context: TaskContext, mebibytes: int) -> None:
    """Use so much memory, a little at a time."""
    be_watched()
    note("start", context)
    eaten = []
    for _ in range(mebibytes):
        eaten.append(b"x" * 2**20)
        await trio.sleep(0)


@app.task(name="deafen")
async def deafen(context: TaskContext) -> None:
    """From now on this worker fetches nothing, as if its driver had lost its way."""
    with noted(context):
        Reader.read = lambda *_: trio.sleep_forever()


@app.task(name="litter")
def litter(context: TaskContext) -> None:
    """Leave two processes in sessions of their own: one that stays, and one that ends with nobody to wait for it."""
    with noted(context):
        script = "setsid sleep 600 & setsid sh -c 'sleep 0.2; exit 3' & exit 0"
        subprocess.run(["sh", "-c", script], start_new_session=True, check=True)


@app.task(name="poison")
async def poison(context: TaskContext, how: str) -> None:
    """Kill the worker: `exit`, or the name of a signal."""
    be_watched()
    note("start", context)
    # Its neighbours get a chance to be in flight.
    await trio.sleep(0.05)
    if how == "exit":
        os._exit(1)
    os.kill(os.getpid(), signal.Signals[how])
    await trio.sleep_forever()
