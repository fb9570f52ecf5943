"""Tasks for child processes, which import this module."""

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from chicory import Backoff, RetryPolicy, TaskContext
from chicory.testing import memory_app

app = memory_app(retry_policy=RetryPolicy(max_retries=0))


@app.task(process=True)
def where() -> int:
    assert threading.current_thread() is threading.main_thread()
    return os.getpid()


@app.task(process=True)
def spin(path: str | None = None) -> None:
    if path is not None:
        grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        Path(f"{path}.new").write_text(f"{os.getpid()} {grandchild.pid}")
        Path(f"{path}.new").rename(path)
    while True:
        pass


@app.task(process=True)
def leave(code: int) -> None:
    # A process that holds what the child held does not hide its end.
    if os.fork() == 0:
        signal.pause()
    os._exit(code)


@app.task(process=True)
def tell(number: int) -> None:
    word = chr(number)
    log = logging.getLogger("killable")
    log.debug("not worth it")
    log.info("100 %% of %s", word)
    try:
        raise ValueError(word)
    except ValueError:
        log.exception("beside")
    if os.fork() == 0:
        log.error("from a process of its own")
        os._exit(0)
    os.wait()


@app.task(process=True)
def crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


@app.task(process=True)
def refuse(word: str) -> None:
    raise ValueError(word)


@app.task(process=True)
def unserialisable() -> object:
    return object()


@app.task(process=True, retry_policy=RetryPolicy(max_retries=2, retry_delay=60, backoff=Backoff.FIXED))
def ask(context: TaskContext, how: str) -> list[object]:
    if how == "fail":
        context.fail("for good")
    if how == "state":
        assert context.state
    if context.retries == 0 and how == "retry":
        context.retry(countdown=0)
    if how == "snooze" and not Path(context.headers["a"]).exists():
        Path(context.headers["a"]).touch()
        context.snooze(0)
    context.progress(1, 2)
    return [context.task_id, context.retries, context.max_retries, context.headers["a"], context.deadline is not None]
