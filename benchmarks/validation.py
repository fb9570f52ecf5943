"""What it costs to hold arguments and results to type hints."""

import time
from collections.abc import Callable
from datetime import date
from typing import Any

from benchmarks import bare
from benchmarks.drain import TASKS, bare_drain, our_drain
from benchmarks.figures import Figure, Target, interleaved
from benchmarks.publish import CALLERS, MANY, PER_CALLER, concurrent_delay, ours, raw
from benchmarks.server import Server
from benchmarks.tasks import Order, echo, echo_plain
from chicory import TaskMessage, ValidationMode

CALLS = 20_000
_GROUP = "validation"
_ORDER = Order(7, "somebody", 12.5, date(2026, 1, 2), ["bread", "butter"])
# The same as it travels.
_PLAIN: dict[str, Any] = echo.message(_ORDER).args[0]


def measure(server: Server, rounds: int) -> list[Figure]:
    """Speed with plain arguments validated, and the price of a dataclass."""
    cpu: dict[str, list[float]] = {name: [] for name in ("noop", "noop_inputs", "echo", "echo_plain")}

    def drained(name: str, value: object) -> Callable[[], float]:
        return lambda: our_drain(server, lambda: TaskMessage(name=name, args=[value]), cpu[name])

    bare_drained, ours_drained, _, pipelined, delayed, _, _, dataclass = interleaved(
        rounds,
        lambda: bare_drain(server, results=True),
        drained("noop_inputs", bare.TEXT),
        drained("noop", bare.TEXT),
        raw(server, bare.publish_pipelined, MANY),
        ours(server, concurrent_delay, CALLERS * PER_CALLER, ValidationMode.INPUTS),
        drained("echo", _PLAIN),
        drained("echo_plain", _PLAIN),
        _there_and_back,
    )
    return [
        Figure(
            group=_GROUP,
            name=f"{TASKS} tasks with a str drained, INPUTS, results stored",
            unit="/s",
            ours=ours_drained,
            bare=bare_drained,
            target=Target(0.45),
        ),
        Figure(
            group=_GROUP,
            name=f"{CALLERS} concurrent delay() callers with a str, INPUTS",
            unit="/s",
            ours=delayed,
            bare=pipelined,
            target=Target(0.35),
        ),
        _beside("CPU of the worker per task with a str, INPUTS beside NONE", cpu["noop_inputs"], cpu["noop"]),
        _beside("the same with a dataclass in and out, STRICT beside NONE", cpu["echo"], cpu["echo_plain"]),
        Figure(
            group=_GROUP,
            name="CPU that STRICT adds to call, run and reading of a task with that dataclass of five fields",
            unit="µs",
            ours=dataclass,
            target=Target(15, at_most=True, absolute=True),
            digits=1,
        ),
    ]


def _beside(name: str, validated: list[float], none: list[float]) -> Figure:
    return Figure(group=_GROUP, name=name, unit="µs", ours=validated, bare=none, digits=1)


def _there_and_back() -> float:
    """Microseconds that STRICT adds to a task in all: to the call, the run and the reading of the result."""
    contract = echo.contract
    called = _microseconds(lambda: echo.message(_ORDER)) - _microseconds(lambda: echo_plain.message(_PLAIN))
    run = _microseconds(lambda: contract.incoming([_PLAIN], {})) + _microseconds(lambda: contract.returning(_ORDER))
    return called + run + _microseconds(lambda: contract.returned(_PLAIN))


def _microseconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    for _ in range(CALLS):
        call()
    return (time.process_time() - started) / CALLS * 1e6
