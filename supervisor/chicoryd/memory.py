"""Whom the kernel killed for want of memory: a SIGKILL does not say who sent it."""

import contextlib
from collections.abc import Sequence
from pathlib import Path


class MemoryKiller:
    """Tells its strikes in the daemon's control group, with all groups below it, from SIGKILLs of others.

    counters: files with a line `oom_kill N`; the first that can be read counts.  None: those of this system.
    """

    def __init__(self, counters: Sequence[Path] | None = None) -> None:
        self._counters = _counters() if counters is None else counters
        self._seen = self._count()

    def struck(self) -> bool:
        """Whether it killed somebody who is not accounted for yet; each strike is told once."""
        new = self._count() > self._seen
        self._seen += new
        return new

    def _count(self) -> int:
        for path in self._counters:
            with contextlib.suppress(OSError, ValueError):
                for line in path.read_text().splitlines():
                    name, _, count = line.partition(" ")
                    if name == "oom_kill":
                        return int(count)
        return 0


def _counters(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[Path]:
    """Where this process's group counts, by either version of control groups; else the count of the whole system."""
    found: list[Path] = []
    with contextlib.suppress(OSError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            below = path.lstrip("/")
            # A container sees its own group as the root of the tree, whatever the path says.
            if not controllers:
                found += [root / below / "memory.events", root / "memory.events"]
            elif "memory" in controllers.split(","):
                found += [root / "memory" / below / "memory.oom_control", root / "memory" / "memory.oom_control"]
    return [*found, Path("/proc/vmstat")]
