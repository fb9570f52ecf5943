"""A child process of a worker, which runs one synchronous task after another: `python -m chicory.worker.child FD`."""

import faulthandler
import functools
import importlib
import logging
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any, cast

from chicory.app import Chicory
from chicory.carried import run_context
from chicory.context import NO_STATE, TaskContext
from chicory.errors import PayloadError, UsageError, ValidationError
from chicory.groups import is_a
from chicory.outcome import Raised, Snoozed
from chicory.task import Task
from chicory.types import Failure, Progress, ResultRecord, TaskMessage, TaskState, Undecodable
from chicory.wire import pack_record, unpack
from chicory.worker.ending import ending_of
from chicory.worker.frames import PREFIX, Answer, Call, frame, read_call
from chicory.worker.records import Sender
from chicory.worker.unfit import undone, unfit

Send = Callable[[Answer], None]


def main() -> None:
    """Answer calls until the worker has gone."""
    sock = socket.socket(fileno=int(sys.argv[1]))
    sock.set_inheritable(False)
    faulthandler.enable()
    calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
    # Beside the task, because a worker that was killed must take its tasks along.
    threading.Thread(target=_listen, args=(sock, calls), name="chicory child", daemon=True).start()
    said = threading.Lock()

    def send(answer: Answer) -> None:
        with said:
            sock.sendall(frame(answer))

    sender = Sender(lambda record: send(Answer(record=record)))
    while True:
        call = calls.get()
        sys.path[:] = call.path
        send(_run(call, send, sender))


def _listen(sock: socket.socket, calls: "queue.SimpleQueue[Call]") -> None:
    with sock.makefile("rb") as stream:
        while len(prefix := stream.read(PREFIX)) == PREFIX:
            calls.put(read_call(stream.read(int.from_bytes(prefix, "big"))))
    # The group is this process and whatever its tasks have started.
    os.killpg(0, signal.SIGKILL)


def _run(call: Call, send: Send, sender: Sender) -> Answer:
    message = unpack(call.message)
    assert not isinstance(message, Undecodable), message.why
    try:
        task = _find(call.module, message.name)
    except UsageError as error:
        return Answer(raised=Raised(Failure("UsageError", str(error)), final=True))
    # As in a worker: a program that has a log of its own keeps that.
    logging.basicConfig(level=call.level, handlers=[sender])
    # Whatever the run sets there, the next one does not see.
    return run_context(task.app.carried).run(_call, task, message, call, send)


def _call(task: Task[..., Any], message: TaskMessage, call: Call, send: Send) -> Answer:
    policy = message.retry_policy or task.retry_policy
    args, kwargs = message.args, message.kwargs
    try:
        if task.app.carried is not None:
            task.app.carried.set(message.headers)
        if task.contract.holds_inputs:
            args, kwargs = task.contract.incoming(args, kwargs)
        if task.takes_context:

            def report(_: str, progress: Progress) -> None:
                send(Answer(progress=progress))

            context = TaskContext(message, call.deliveries, policy.max_retries, call.deadline, report, state=NO_STATE)
            args = (context, *args)
        value = task.function(*args, **kwargs)
    except BaseException as error:
        ending = ending_of(policy, error)
        return Answer(snoozed=ending) if isinstance(ending, Snoozed) else Answer(raised=ending)
    return _returned(task, value, kept=not message.ignore_result)


def _returned(task: Task[..., Any], value: Any, *, kept: bool) -> Answer:
    try:
        if why := undone(value):
            raise PayloadError(why)
        if kept and task.contract.holds_outputs:
            value = task.contract.returning(value)
        return Answer(value=pack_record(ResultRecord(TaskState.SUCCESS, value=value if kept else None)))
    # Any exception: a value may have code of its own.
    except BaseException as error:
        # It would return the same again.
        kind = "ValidationError" if is_a(error, ValidationError) else "PayloadError"
        return Answer(raised=Raised(Failure(kind, unfit(value, error)), final=True))


@functools.cache
def _find(module: str, name: str) -> Task[..., Any]:
    """The task *name*, by the app or the task in *module*."""
    try:
        found = vars(importlib.import_module(module)).values()
    except (Exception, SystemExit) as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise UsageError(
            f"task {name!r} runs in a child process, which cannot import {module} ({why}); "
            "make it a module that imports anywhere, or leave out process=True"
        ) from error
    for value in list(found):
        if isinstance(value, Task) and value.name == name:
            return cast("Task[..., Any]", value)
        if isinstance(value, Chicory) and name in value.tasks:
            return value.find(name)
    raise UsageError(
        f"task {name!r} runs in a child process, which does not find it in {module}; "
        "define it at the top of a module, or leave out process=True"
    )


if __name__ == "__main__":
    main()
