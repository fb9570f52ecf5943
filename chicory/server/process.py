"""The server process: its command line, its start, its answers and its end."""

import contextlib
import ctypes
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from chicory.embedded import FoundServer, socket_path
from chicory.errors import ConfigError

_PR_SET_PDEATHSIG = 1
_LOG_KEPT = 1024 * 1024


def prepare(state_dir: Path) -> None:
    """Make *state_dir*, for its owner alone; ConfigError when others could put their own socket into it."""
    os.umask(0o077)  # every file in it too
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = state_dir.stat().st_mode
    except OSError as error:
        raise ConfigError(f"cannot make the state directory {state_dir}: {error.strerror}") from error
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(f"others may write to the state directory {state_dir}; run: chmod 700 {state_dir}")
    if not os.access(state_dir, os.W_OK | os.X_OK):
        raise ConfigError(f"cannot write to the state directory {state_dir}; mend its owner, or set broker.state_dir")


def command_line(found: FoundServer, state_dir: Path) -> list[str]:
    """How the server is started.  Nothing listens on a port, and nothing is ever evicted or lost to a restart."""
    settings = {
        "port": "0",
        "unixsocket": str(socket_path(state_dir)),
        "unixsocketperm": "600",
        "dir": str(state_dir),
        "pidfile": str(state_dir / "redis.pid"),
        "daemonize": "no",
        "appendonly": "yes",
        "appendfsync": "everysec",
        # The base file as commands, not as a dump: dumps are not readable across servers and versions, and the server
        # found tomorrow may be another one (the wheel's today, the distribution's after an installation).
        "aof-use-rdb-preamble": "no",
        "save": "",
        "maxmemory-policy": "noeviction",
        # Ten timer ticks a second are most of what an idle server costs (0.18 % of a core against 0.02 %).  Everything
        # that must be exact happens between commands, not in the timer.
        "hz": "1",
    }
    return [found.path, *(part for name, value in settings.items() for part in (f"--{name}", value))]


class Server:
    """A started server; its output is appended to *log*.

    It stays in our process group, which chicoryd made: Ctrl-C passes both by, and what kills the group kills both.
    """

    def __init__(self, found: FoundServer, state_dir: Path, *, hold: int) -> None:
        self.found = found
        self.log = state_dir / "redis.log"
        self._socket = socket_path(state_dir)
        _trim(self.log)
        # A predecessor that was killed leaves its socket; the hold on the directory says that it has gone.
        self._socket.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                command_line(found, state_dir),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[hold],
                preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 - there is one thread
            )
        self.pid = self._process.pid

    def ended(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def ask(self, command: str, timeout: float = 1.0) -> str:
        """The first lines of its answer; an empty text when it does not answer."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(timeout)
                connection.connect(str(self._socket))
                connection.sendall(command.encode() + b"\r\n")
                return connection.recv(4096).decode(errors="replace")
        except OSError:
            return ""

    def answers(self) -> bool:
        """Whether it serves: it is started, and has read its file."""
        return self.ask("PING").startswith("+PONG")

    def clients(self) -> int:
        """How many are connected, besides the one that asks."""
        for line in self.ask("INFO clients").splitlines():
            if line.startswith("connected_clients:"):
                return int(line.partition(":")[2]) - 1
        return 0

    def resident(self) -> int | None:
        """Bytes of memory it has; None where the system does not tell so cheaply."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        except OSError:
            return None
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def stop(self, deadline: float) -> int:
        """End it: it flushes its file first, and is killed after *deadline* seconds."""
        # The command ends it at once, but not while it reads its file; the signal is looked at once a second, always.
        self.ask("SHUTDOWN NOSAVE")
        self._process.terminate()
        try:
            return self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def last_words(self, lines: int = 5) -> str:
        """The end of what this run of it wrote to its log."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return "\n".join(log.read()[-8192:].decode(errors="replace").splitlines()[-lines:])


def _die_with(parent: int) -> Callable[[], None] | None:
    """What the child does before it becomes the server: ask the kernel to kill it when *parent* dies.

    SIGKILL and not SIGTERM: a server that cannot write its file refuses to stop, and a kill loses nothing that was
    acknowledged, since the file is written before the reply is sent.
    """
    if not sys.platform.startswith("linux"):
        return None  # there the directory's hold keeps a second server from starting beside an orphan
    libc = ctypes.CDLL(None)

    def die_with_parent() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return die_with_parent


def _trim(log: Path) -> None:
    """Keep one older log of a size worth reading."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > _LOG_KEPT:
            log.replace(log.with_suffix(".log.1"))
