"""The app and the tasks that are measured."""

import os
import time
from dataclasses import dataclass
from datetime import date

from benchmarks.process import URL
from chicory import Chicory, ValidationMode

# (number, unix seconds of its first line), and nanoseconds from send() to the first line.
started: list[tuple[int, float]] = []
latencies: list[int] = []

# Without the variable it is what the settings say: so it is under chicoryd.
app = Chicory(os.environ.get(URL))


@app.task(name="noop")
async def noop(text: str) -> None:
    """A task that does nothing, so that only the road there and back is measured."""


@app.task(name="noop_inputs", validation_mode=ValidationMode.INPUTS)
async def noop_inputs(text: str) -> None:
    """The same, with its argument validated."""


@dataclass
class Order:
    """An argument of a class of its own."""

    number: int
    customer: str
    total: float
    due: date
    lines: list[str]


@app.task(name="echo", validation_mode=ValidationMode.STRICT)
async def echo(order: Order) -> Order:
    """Takes and returns an object."""
    return order


@app.task(name="echo_plain")
async def echo_plain(order: dict[str, object]) -> dict[str, object]:
    """Takes and returns the same as it travels."""
    return order


@app.task(name="note_latency")
async def note_latency(sent: int) -> None:
    """Note how long ago it was sent, by the clock that all processes of a machine share."""
    latencies.append(time.monotonic_ns() - sent)


@app.task(name="note_start")
async def note_start(number: int) -> None:
    """Note when it was started."""
    started.append((number, time.time()))
