"""One place in the fleet, which one child at a time may fill.  Pure."""

import signal
from collections.abc import Mapping
from enum import StrEnum
from typing import cast

import attrs

from chicoryd.events import Message, Role


class State(StrEnum):
    """Where a slot's child is in its life."""

    DOWN = "down"  # there is none; `due` says when to start one
    STARTING = "starting"  # asked for; Started or StartFailed will follow
    BOOTING = "booting"  # runs, and has not said `ready`
    READY = "ready"
    STOPPING = "stopping"  # told to leave
    HUNG = "hung"  # SIGABRT was sent; Exited will follow, or SIGKILL
    KILLED = "killed"  # SIGKILL was sent; Exited will follow


@attrs.frozen(kw_only=True)
class Slot:
    """A slot, and what became of its last child.

    name: `worker-1`.  While its child is being replaced there may be two slots more for the same seat: `worker-1.new`
        for the successor, until it is ready and takes over the name, and `worker-1.old` for the predecessor, until it
        has left.
    generation: of the template or of the settings that the child has.
    due: when the next thing happens if nothing else does: the start of a child that is down, the end of patience with
        one that boots, is silent, stops or has hung up.  None: only an event changes anything.
    failures: deaths in a row without a healthy life in between, which set the back-off.
    boots_failed: deaths in a row before the child was ready, which make the daemon give up at its first start.
    consumer, incarnation: of the child that runs, or ran last; never used twice.
    luck: in [0, 1), what sets this child's limits apart from others'.
    blame: why the child was killed, if it was.
    beat: what the child last told of itself; `beat_at` is when.
    words: what it printed last, where that is listened to.
    moved_at: when it last fetched, or had nothing to fetch; `nudged` says that it was told to connect anew since.
    quiet: whether it was told to fetch nothing.
    replace: why another child should take its place; empty when none should.
    retired: whether the slot ends with its child.
    report: what it said when it left.
    """

    name: str
    role: Role
    generation: int = 1
    state: State = State.DOWN
    pid: int | None = None
    consumer: str = ""
    incarnation: int = 0
    due: float | None = 0.0
    born: float = 0.0
    ready_at: float | None = None
    hung_up: bool = False
    failures: int = 0
    boots_failed: int = 0
    luck: float = 0.5
    code: int | None = None
    ended: str = ""
    blame: str = ""
    beat: Message = attrs.field(factory=dict[str, object])
    beat_at: float = 0.0
    words: tuple[str, ...] = ()
    moved_at: float = 0.0
    nudged: bool = False
    quiet: bool = False
    replace: str = ""
    retired: bool = False
    report: Mapping[str, object] | None = None

    @property
    def up(self) -> bool:
        """Whether there is a child, or may be one."""
        return self.state is not State.DOWN

    @property
    def seat(self) -> str:
        """The name without `.new` and `.old`."""
        return self.name.partition(".")[0]

    @property
    def number(self) -> int:
        """Of a worker's seat: 1, 2, 3 ..."""
        return int(self.seat.partition("-")[2])

    @property
    def restarts(self) -> int:
        """How many children came after the first."""
        return max(self.incarnation - 1, 0)


def cause(code: int, *, starved: bool = False) -> str:
    """How a child ended, in words: `killed by SIGSEGV`, `exited with status 3`."""
    if code >= 0:
        return f"exited with status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}{', out of memory' if starved else ''}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-code}"


def tasks(slot: Slot) -> list[dict[str, object]]:
    """Those that the child ran when it last told: each with `id` and `name`."""
    found = slot.beat.get("tasks")
    each = cast("list[object]", found) if isinstance(found, list) else []
    return [cast("dict[str, object]", task) for task in each if isinstance(task, dict)]
