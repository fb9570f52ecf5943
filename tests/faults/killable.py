"""An app whose tasks run in child processes, for the daemons under test; they note their runs as `tasks` does."""

import logging
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date

from chicory import Chicory, RetryPolicy, TaskContext, ValidationMode
from tests.faults.tasks import be_watched, note, noted

app = Chicory(retry_policy=RetryPolicy(max_retries=0), validation_mode=ValidationMode.STRICT)


@dataclass
class Parcel:
    """What is sent somewhere."""

    weight: float
    day: date


@app.task(name="spin", process=True)
def spin(context: TaskContext, grandchildren: int) -> None:
    be_watched()
    for _ in range(grandchildren):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    note("start", context)
    while context.deliveries == 1:
        pass
    note("end", context)


@app.task(name="work", process=True)
def work(context: TaskContext, seconds: float) -> int:
    with noted(context):
        time.sleep(seconds)
    return os.getpid()


@app.task(name="eat", process=True)
def eat(context: TaskContext, mebibytes: int) -> int:
    with noted(context):
        return len(b"x" * (mebibytes * 2**20))


@app.task(name="weigh", process=True, retry_policy=RetryPolicy(max_retries=1, retry_delay=600))
def weigh(context: TaskContext, parcel: Parcel, how: str = "") -> Parcel:
    log = logging.getLogger("scales")
    log.info("weighing for %s, %d", context.task_id, context.retries)
    context.progress(1, 2, "on the scales")
    if how == "snooze" and parcel.weight and not os.path.exists(context.headers["once"]):
        open(context.headers["once"], "w").close()
        context.snooze(0)
    if how == "retry" and not context.retries:
        context.retry(countdown=0)
    if how == "fail":
        context.fail("too heavy")
    print(f"weighed for {context.task_id}")
    return Parcel(parcel.weight * 2, parcel.day)
