"""What every process of Chicory does alike: errors as exit codes, obeying signals and chicoryd."""

import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import trio

from chicory.config import ChicoryConfig
from chicory.errors import ChicoryError, ConfigError
from chicory.exits import exit_code
from chicory.groups import sole
from chicory.lifeline import Lifeline
from chicory.types import BrokerType

# Seconds between two looks at the proportional memory: the kernel walks every page for it.
MEASURE = 10.0
# Bytes that a worker needs beyond what importing the app has left it with.
_BEGIN = 32 * 2**20


def run(role: str, call: Callable[[], int]) -> int:
    """The exit code of *call*; an error raised on purpose becomes one line and the code that goes with it."""
    try:
        return call()
    except Exception as error:
        cause = sole(error)
        if not isinstance(cause, ChicoryError):
            raise
        print(f"chicory {role}: {' '.join(str(cause).split())}", file=sys.stderr)
        return exit_code(cause)


def refuse_memory(config: ChicoryConfig) -> None:
    """ConfigError when messages would live in a process of their own, where nobody else could put any."""
    if config.broker.type is BrokerType.MEMORY:
        raise ConfigError(
            "the memory broker lives within one process; use Worker(app).run() there, or another broker.type"
        )


def limit_memory(most: int | None) -> None:
    """Make this process the first that the kernel kills when memory runs out, and refuse it more than *most* bytes.

    ConfigError when *most* would not even let it begin.
    """
    with suppress(OSError):  # not Linux
        Path("/proc/self/oom_score_adj").write_text("500")
    if most is None:
        return
    import resource

    used = _status("VmData:")
    if most < used + _BEGIN:
        least = (used + _BEGIN) // 2**20 + 1
        raise ConfigError(f"supervisor.memory_hard lets no worker begin; give it {least} MiB or more")
    # Not the address space, of which an interpreter and its libraries map far more than they ever use.
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


async def obey_signals(stop: Callable[[], None], hurry: Callable[[], None], *, interrupts: bool) -> None:
    """Call *stop* on SIGTERM, and with *interrupts* on SIGINT, of which the second calls *hurry*; until cancelled.

    Nothing is raised into a task: the signals are read like messages.
    """
    signals = (signal.SIGTERM, signal.SIGINT) if interrupts else (signal.SIGTERM,)
    asked = False
    with trio.open_signal_receiver(*signals) as received:
        async for number in received:
            if asked and number == signal.SIGINT:
                hurry()
            else:
                stop()
            asked = True


async def beat(line: Lifeline, seconds: float, facts: Callable[[], dict[str, object]]) -> None:
    """Tell chicoryd every *seconds* how this process is doing, until cancelled."""
    while True:
        await trio.sleep(seconds)
        line.send("beat", **facts())


class Memory:
    """Bytes of memory that this process uses; 0 where that cannot be known."""

    def __init__(self) -> None:
        self._measured = float("-inf")
        self._proportional = 0

    def resident(self) -> int:
        """All it has, what it shares with others included."""
        return _status("VmRSS:")

    def proportional(self, now: float) -> int:
        """What it has alone, and its part of what it shares; as of less than MEASURE seconds before *now*."""
        if now - self._measured >= MEASURE:
            self._measured = now
            self._proportional = _status("Pss:", "smaps_rollup")
        return self._proportional


def _status(field: str, file: str = "status") -> int:
    """Bytes, as the kernel tells them of this process; 0 where it does not."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/self", file).read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return 0
