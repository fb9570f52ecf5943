"""Everything that a task can do wrong, in one table: what it is, and how its failure is recorded.

All of it is sent to one worker, with a good task after each bad one: once to a process that works on Redis, and once to
memory as `chicory.testing` has it.  The worker must carry on, and nothing may be left.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import trio

from chicory import Chicory, Failure, RetryPolicy, TaskContext, TaskMessage, TaskState, ValidationMode
from chicory.testing import memory
from chicory.types import QueueSizes
from tests.servers import running_server

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0

app = Chicory(retry_policy=RetryPolicy(max_retries=0, retry_on=("Exception", "BaseException"), ignore_on="Ignored"))


class Row(NamedTuple):
    """A message, and what must be known of its task in the end.  alone: it harms the process, if not the worker."""

    message: Callable[[], TaskMessage]
    state: TaskState
    failure: str
    words: str
    alone: bool


TABLE: dict[str, Row] = {}


def sent(what: str, failure: str, words: str, name: str, **fields: Any) -> None:
    """A message that `delay` would have refused, or that came too late."""
    state = TaskState.EXPIRED if failure == "TaskExpired" else TaskState.DEAD_LETTERED
    TABLE[what] = Row(lambda: TaskMessage(name=name, **fields), state, failure, words, alone=False)


def fails(failure: str, words: str = "", *args: Any, alone: bool = False, **options: Any) -> Any:
    """A task that, called with *args*, must fail with *failure*, whose message has *words* in it."""

    def add(function: Any) -> Any:
        task = app.task(name=function.__name__, **options)(function)
        row = Row(partial(task.message, *args), TaskState.DEAD_LETTERED, failure, words, alone)
        TABLE[function.__name__] = row
        return task

    return add


def succeeds(*args: Any, alone: bool = False, **options: Any) -> Any:
    """A task that must succeed, whatever it does."""

    def add(function: Any) -> Any:
        task = app.task(name=function.__name__, **options)(function)
        TABLE[function.__name__] = Row(partial(task.message, *args), TaskState.SUCCESS, "", "", alone)
        return task

    return add


@app.task(name="good")
async def good(number: int) -> list[int]:
    return [number, os.getpid()]


# What cannot be run.

sent("an unknown name", "UnknownTask", "no task named 'goood'; did you mean 'good'?", "goood")
sent("an argument too few", "ArgumentsError", "good(number: int) -> list[int]: missing a required", "good")
sent("an argument too many", "ArgumentsError", "too many positional arguments", "good", args=[1, 2])
sent("an unknown argument", "ArgumentsError", "unexpected keyword argument 'n'", "good", args=[1], kwargs={"n": 2})
sent("an argument of another type", "ValidationError", "checked: number", "checked", args=["one"])
sent("a late one", "TaskExpired", "it expired at 2020", "good", args=[1], expires=datetime(2020, 1, 1, tzinfo=UTC))


@app.task(name="checked", validation_mode=ValidationMode.STRICT)
async def checked(number: int) -> None: ...


# What is raised: in a trio task, after it has waited, in a thread, on asyncio, in a child process.


class Ignored(Exception):
    pass


class Mute(Exception):
    def __str__(self) -> str:
        raise SystemExit


class Odd(Exception):
    __module__ = "odd"
    __traceback__ = property(lambda _: sys.exit(), lambda *_: None)  # type: ignore[assignment]

    def __getattribute__(self, name: str) -> Any:
        raise KeyboardInterrupt(name)


def nested(depth: int) -> BaseException:
    error: BaseException = ValueError("innermost")
    for _ in range(depth):
        error = BaseExceptionGroup("outer", [error])
    return error


RAISED = {
    "an exception": (lambda: ValueError("plain"), "ValueError", "plain"),
    "one that is not tried again": (lambda: Ignored("of no use"), "Ignored", "of no use"),
    "one whose text raises": (Mute, "Mute", "<its text cannot be made: SystemExit>"),
    "one that lies": (Odd, "Odd", ""),
    "a text without end": (lambda: ValueError("x" * 2**24), "ValueError", "xxx..."),
    "a text of surrogates": (lambda: ValueError("\udc80"), "ValueError", "\\udc80"),
    "a group": (lambda: ExceptionGroup("two", [ValueError(1), OSError(2)]), "ExceptionGroup", "two (2 sub-exceptions)"),
    "a group of others": (
        lambda: BaseExceptionGroup("odd", [KeyboardInterrupt(), SystemExit(1), ValueError(2)]),
        "BaseExceptionGroup",
        "odd (3 sub-exceptions)",
    ),
    "a wide group": (
        lambda: ExceptionGroup("wide", [ValueError(number) for number in range(10_000)]),
        "ExceptionGroup",
        "wide (10000 sub-exceptions)",
    ),
    "a deep group": (lambda: nested(1000), "ExceptionGroup", "outer (1 sub-exception)"),
    "SystemExit": (lambda: SystemExit(3), "SystemExit", "3"),
    "KeyboardInterrupt": (KeyboardInterrupt, "KeyboardInterrupt", ""),
    "GeneratorExit": (GeneratorExit, "GeneratorExit", ""),
    "StopIteration": (StopIteration, "RuntimeError", "StopIteration"),
    "CancelledError": (asyncio.CancelledError, "CancelledError", ""),
}


@app.task(name="raise-at-once")
async def raise_at_once(what: str) -> None:
    raise RAISED[what][0]()


@app.task(name="raise-later")
async def raise_later(what: str) -> None:
    await trio.sleep(0.001)
    raise RAISED[what][0]()


@app.task(name="raise-in-a-thread")
def raise_in_a_thread(what: str) -> None:
    raise RAISED[what][0]()


@app.task(name="raise-on-asyncio", flavor="asyncio")
async def raise_on_asyncio(what: str) -> None:
    raise RAISED[what][0]()


for _what, (_, _failure, _words) in RAISED.items():
    for _task in (raise_at_once, raise_later, raise_in_a_thread, raise_on_asyncio):
        sent(f"{_task.name}: {_what}", _failure, _words, _task.name, args=[_what])


@fails("Cancelled", "the task raised Cancelled itself")
async def raise_cancelled() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep(1)
        except trio.Cancelled as error:
            kept = error
            raise
    raise kept


@fails("SystemExit", "4", process=True)
def exit_in_a_child() -> None:
    sys.exit(4)


@fails("ProcessDied", "the task's process died of exit code 5", process=True, alone=True)
def end_a_child() -> None:
    os._exit(5)


@fails("TaskTimeout", "took longer than 0.05 s", timeout=0.05)
async def swallow_the_end_of_its_time() -> str:
    with contextlib.suppress(trio.Cancelled):
        await trio.sleep_forever()
    return "no such thing"


@fails("GiveUp", "of no use")
async def give_up(context: TaskContext) -> None:
    context.fail("of no use")


# What is returned: a failure, since it would be returned again, which says what to do instead.


class Exits(UUID):
    hex = property(lambda _: sys.exit())  # type: ignore[assignment]


LOOP: list[object] = []
LOOP.append(LOOP)

RETURNED: dict[str, tuple[Callable[[], object], str]] = {
    "an object": (object, "result: a object is not JSON; pass plain values"),
    "a set": (lambda: {"items": [{1}]}, "result.items[0]: a set is not JSON"),
    "10 MiB": (lambda: "x" * 10 * 2**20, "262144 are allowed; store the data elsewhere and return where it is"),
    "11,000 values": (lambda: [0] * 11_000, "more than 10000 values; store the data elsewhere"),
    "itself in itself": (lambda: LOOP, "nested deeper than 32"),
    "no number": (lambda: float("nan"), "result: nan is not JSON; pass None or a str"),
    "a large number": (lambda: 2**64, "result: the integer does not fit 64 bits; pass it as a str"),
    "a surrogate": (lambda: "\udc80", "the result cannot be encoded"),
    "a key that is none": (lambda: {1: 2}, "result: the key 1 is a int; JSON keys are str"),
    "what exits": (lambda: Exits(int=1), "code of the result raised SystemExit"),
}


@app.task(name="return-it")
async def return_it(what: str) -> object:
    return RETURNED[what][0]()


@app.task(name="return-from-a-child", process=True)
def return_from_a_child(what: str) -> object:
    return RETURNED[what][0]()


for _what, (_, _words) in RETURNED.items():
    for _task in (return_it, return_from_a_child):
        sent(f"{_task.name}: {_what}", "PayloadError", _words, _task.name, args=[_what])


async def unfinished() -> int:
    return 1


@fails("PayloadError", "returned the coroutine unfinished, which nobody awaits; make the task, and each decorator")
def forget_async() -> object:
    return unfinished()


@fails("PayloadError", "returned the coroutine unfinished, which nobody awaits", process=True)
def forget_async_in_a_child() -> object:
    return unfinished()


@fails("PayloadError", "returned the coroutine unfinished, which nobody awaits")
async def forget_await() -> object:
    return unfinished()


@fails("PayloadError", "and nobody would take what that yields; return a list, or send a task for each item")
async def return_a_stream() -> object:
    async def stream() -> AsyncIterator[int]:
        yield 1

    return stream()


@fails("PayloadError", "and nobody would take what that yields; return a list")
def return_a_generator() -> object:
    return (number for number in (1, 2))


@fails("ValidationError", "result", validation_mode=ValidationMode.STRICT)
async def return_another_type() -> int:
    return "one"  # type: ignore[return-value]


# What is done to the process: not the task's failure, and not the worker's, either.

TRIES: dict[str, list[Any]] = {}


@succeeds([1], retry_policy=RetryPolicy(max_retries=1, retry_delay=0))
async def change_arguments(context: TaskContext, items: list[object]) -> None:
    TRIES.setdefault(context.task_id, []).append(list(items))
    items += [{1}, items]
    if len(TRIES[context.task_id]) < 2:
        raise ValueError("once more")
    assert TRIES[context.task_id] == [[1], [1]]


@succeeds()
def leave_a_thread() -> None:
    threading.Thread(target=threading.Event().wait, daemon=True).start()


@succeeds(alone=True)
def close_output() -> None:
    sys.stdout.close()
    os.close(1)


@succeeds(alone=True)
async def lose_the_directory() -> None:
    with tempfile.TemporaryDirectory() as gone:
        os.chdir(gone)


@succeeds(alone=True)
async def take_signals() -> None:
    for number in (signal.SIGINT, signal.SIGALRM, signal.SIGUSR2):
        signal.signal(number, lambda *_: None)
    signal.raise_signal(signal.SIGALRM)


async def check(rows: dict[str, Row], settled: Callable[[], Any], pid: int) -> None:
    """Send all, wait until that is *settled*, and look at what became of it."""
    messages = {what: row.message() for what, row in rows.items()}
    results = {}
    fine = []
    for number, (what, message) in enumerate(messages.items()):
        await app.publish(message)
        results[what] = app.result_of(message)
        fine.append(await good.delay(number))

    await settled()

    wrong = []
    for what, row in rows.items():
        record = await results[what].wait(PATIENCE)
        failure = record.failure or Failure("", "")
        if (record.state, failure.type) != (row.state, row.failure) or row.words not in failure.message:
            wrong.append((what, record.state, str(failure)))
    assert wrong == []
    assert [await result.get(PATIENCE) for result in fine] == [[number, pid] for number in range(len(fine))]
    dead = sum(row.state is TaskState.DEAD_LETTERED for row in rows.values())
    assert await app.broker.get_queue_sizes() == QueueSizes(ready=0, delayed=0, delivered=0, dead=dead)


async def test_whatever_a_task_does_its_failure_is_recorded_and_the_worker_process_carries_on(tmp_path, monkeypatch):
    with running_server("redis") as server:
        redis = f'[broker.redis]\nurl = "{server.url}"\nblock_ms = 500\n'
        (tmp_path / "chicory.toml").write_text(f'[broker]\ntype = "redis"\n{redis}[log]\nfile = "log"\n')
        for name in [name for name in os.environ if name.startswith("CHICORY")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("CHICORY_CONFIG", str(tmp_path / "chicory.toml"))
        monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT}/supervisor")
        command = ["chicoryd.child", "chicory.cli:main", "worker", f"{__name__}:app", "--concurrency", "2"]
        with (tmp_path / "out").open("wb") as out:
            process = subprocess.Popen([sys.executable, "-m", *command], cwd=tmp_path, stdout=out, stderr=out)
        try:
            async with app:
                await check(TABLE, trio.lowlevel.checkpoint, process.pid)
            process.send_signal(signal.SIGTERM)
            code = await trio.to_thread.run_sync(process.wait, PATIENCE)
        finally:
            process.kill()
            process.wait()

    told = (tmp_path / "out").read_text() + (tmp_path / "log").read_text()
    assert code == 0, told
    assert "never awaited" not in told


async def test_and_so_it_is_in_memory(autojump_clock):
    with memory(app) as queues:
        await check({what: row for what, row in TABLE.items() if not row.alone}, queues.drain, os.getpid())
