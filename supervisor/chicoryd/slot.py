"""One place in the fleet, which one child at a time may fill.  Pure."""

import signal
from collections.abc import Mapping
from enum import StrEnum

import attrs

from chicoryd.events import Role


class State(StrEnum):
    """Where a slot's child is in its life."""

    DOWN = "down"  # there is none; `due` says when to start one
    STARTING = "starting"  # asked for; Started or StartFailed will follow
    BOOTING = "booting"  # runs, and has not said `ready`
    READY = "ready"
    STOPPING = "stopping"  # told to leave
    KILLED = "killed"  # SIGKILL was sent; Exited will follow


@attrs.frozen(kw_only=True)
class Slot:
    """A slot, and what became of its last child.

    due: when the next thing happens if nothing else does: the start of a child that is down, the end of patience with
        one that boots, stops or has hung up.  None: only an event changes anything.
    failures: deaths in a row without a healthy life in between, which set the back-off.
    boots_failed: deaths in a row before the child was ready, which make the daemon give up at its first start.
    incarnation: of the child that runs, or ran last; never used twice.
    beat: what the child last told of itself; `beat_at` is when.
    """

    name: str
    role: Role
    state: State = State.DOWN
    pid: int | None = None
    incarnation: int = 0
    due: float | None = 0.0
    born: float = 0.0
    ready_at: float | None = None
    failures: int = 0
    boots_failed: int = 0
    code: int | None = None
    ended: str = ""
    beat: Mapping[str, object] = attrs.field(factory=dict[str, object])
    beat_at: float = 0.0

    @property
    def up(self) -> bool:
        """Whether there is a child, or may be one."""
        return self.state is not State.DOWN

    @property
    def restarts(self) -> int:
        """How many children came after the first."""
        return max(self.incarnation - 1, 0)


def cause(code: int) -> str:
    """How a child ended, in words: `killed by SIGSEGV`, `exited with status 3`."""
    if code >= 0:
        return f"exited with status {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-code}"
