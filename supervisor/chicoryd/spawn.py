"""Starting children, and finding out which have ended."""

import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import Path

import attrs

from chicoryd.events import Role, Start
from chicoryd.lifeline import Line, as_text

LIFELINE_FD = 3  # in the child

_PR_SET_CHILD_SUBREAPER = 36
# Of the supervisor alone: a child must not speak for it to the service manager, nor take its sockets.
_PRIVATE = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
# A child starts with default handlers and nothing blocked, whatever the supervisor or its parent ignores.
_SIGNALS = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


@attrs.frozen(kw_only=True)
class Entries:
    """Where each kind of child begins, as `module:function`: the supervisor imports none of them."""

    check: str = "chicory.check.main:main"
    server: str = "chicory.server.main:main"
    scheduler: str = "chicory.scheduler.main:main"
    worker: str = "chicory.worker.main:main"

    def command(self, role: Role, *arguments: str) -> list[str]:
        """The command line of a child of *role*."""
        module, entry = {
            Role.CHECK: ("child", self.check),
            Role.SERVER: ("child", self.server),
            Role.SCHEDULER: ("child", self.scheduler),
            Role.TEMPLATE: ("template", self.worker),
            Role.WORKER: ("child", self.worker),
        }[role]
        return [sys.executable, "-m", f"chicoryd.{module}", entry, *arguments]


@attrs.frozen
class Spawner:
    """Starts children that read *config*.

    words: the file for the traceback of a child that fails before the daemon ever worked.
    """

    entries: Entries
    config: Path
    environ: Mapping[str, str]
    words: Path

    def start(self, wish: Start) -> tuple[int, Line]:
        """A child in a session of its own, so that Ctrl-C passes it by and its descendants can be killed with it.

        OSError when the system would not.  posix_spawn blocks all signals until the child's own handlers are in place,
        and copies no memory.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            # Every other descriptor closes by itself.
            kept = [LIFELINE_FD]
            command = self.entries.command(wish.role)
            if wish.role is Role.CHECK:
                kept, command = [1, 2], self.entries.command(wish.role, "--app", "--broker")
            try:
                pid = os.posix_spawn(
                    sys.executable,
                    command,
                    self._inherited() | self._own(wish) | {"CHICORYD_SETTINGS": wish.settings},
                    file_actions=[
                        *((os.POSIX_SPAWN_DUP2, theirs.fileno(), number) for number in kept),
                        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    ],
                    setsid=True,
                    setsigmask=(),
                    setsigdef=_SIGNALS,
                )
            except OSError:
                ours.close()
                raise
        return pid, Line(ours, as_text) if wish.role is Role.CHECK else Line(ours)

    def fork(self, wish: Start, template: Line) -> Line:
        """The lifeline of a child that *template* is asked to fork.  It will say that it was born, or hang up."""
        ours, theirs = socket.socketpair()
        with theirs:
            own = self._own(wish)
            words = own.pop("CHICORYD_LAST_WORDS", "")
            title = wish.consumer.split(":")[-2]
            try:
                entry = self.entries.command(wish.role)[-1]
                message = {"t": "fork", "entry": entry, "environ": own, "words": words, "title": title}
                template.hand(message, theirs.fileno())
            except OSError:
                ours.close()
                raise
        return Line(ours)

    def check(self, *flags: str) -> int:
        """Run the check child to its end, in the terminal's group; its exit status."""
        pid = os.posix_spawn(
            sys.executable,
            self.entries.command(Role.CHECK, *flags),
            self._inherited() | {"CHICORYD_ROLE": Role.CHECK},
            setsigmask=(),
            setsigdef=_SIGNALS,
        )
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return code if code >= 0 else os.EX_SOFTWARE

    def _inherited(self) -> dict[str, str]:
        kept = {key: value for key, value in self.environ.items() if key not in _PRIVATE}
        return {**kept, "CHICORY_CONFIG": str(self.config)}

    def _own(self, wish: Start) -> dict[str, str]:
        own = {"CHICORYD_ROLE": str(wish.role)}
        if wish.role is not Role.CHECK:
            own |= {"CHICORYD_NAME": wish.consumer, "CHICORYD_LIFELINE": str(LIFELINE_FD)}
            if wish.first:
                own["CHICORYD_LAST_WORDS"] = str(self.words)
        return own


def prepare() -> None:
    """Become the parent of all orphans below, and keep every descriptor that was inherited from the children."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    for fd in map(int, os.listdir("/dev/fd")):
        if fd > 2:
            try:
                os.set_inheritable(fd, False)
            except OSError:  # the one that listed the directory
                continue


def reap(ours: Callable[[int], bool]) -> Iterator[tuple[int, int]]:
    """Each child that has ended, as pid and code (minus the signal that killed it).

    What a child of *ours* left behind in its group is killed before the child is reaped: only until then is the number
    sure to be its own.
    """
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None:
            return
        if ours(found.si_pid):
            kill_group(found.si_pid)
        yield found.si_pid, os.waitstatus_to_exitcode(os.waitpid(found.si_pid, 0)[1])


def kill_group(pid: int) -> None:
    """SIGKILL to *pid*, which is not reaped yet, and to all of its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def sweep(spared: Set[int], patience: float = 2.0) -> int:
    """SIGKILL to all children that are left when the fleet is over, and to theirs; how many there were.

    They are what tasks started in sessions of their own.  One that cannot even be killed is waited for *patience*
    seconds and no longer.  Those *spared* are nobody's but the daemon's own.
    """
    killed: set[int] = set()
    end = time.monotonic() + patience
    while time.monotonic() < end:
        for _ in reap(lambda _: False):
            pass
        left = children() - spared
        if not left:
            break
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed |= left
        time.sleep(0.01)  # the children of the dead become ours only now
    return len(killed)


def children() -> set[int]:
    """All children of this process; none where the system does not tell, or does not give us orphans."""
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has just ended
            found |= set(map(int, path.read_text().split()))
    return found
