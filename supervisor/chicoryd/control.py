"""The control socket: one JSON line asks, one answers.  Only the daemon's own user and root may."""

import contextlib
import itertools
import json
import os
import select
import socket
import struct
import sys
from pathlib import Path
from typing import Any, cast

_LONGEST = 4096  # bytes of a request
_TIMEOUT = 5.0  # seconds a client waits for an answer that needs no work
_PATIENCE = 0.05  # seconds for an answer that is larger than the socket's buffer
_PATH_LIMIT = 107


class NotRunning(Exception):
    """No daemon listens on the state directory."""


class Refused(Exception):
    """The daemon says why it will not do what was asked."""


def socket_path(state_dir: Path) -> Path:
    """Where the daemon of *state_dir* listens; OSError when no socket can have so long a name."""
    path = state_dir / "chicoryd.sock"
    length = len(os.fsencode(path))
    if length > _PATH_LIMIT:
        raise OSError(0, f"its path has {length} bytes and a unix socket's may have {_PATH_LIMIT}")
    return path


class Client:
    """One connection, as the daemon sees it."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._heard = b""

    def request(self) -> dict[str, Any] | None:
        """What is asked, None while it is not complete.  ValueError when it is no request, or nobody is there."""
        try:
            data = self.socket.recv(_LONGEST)
        except BlockingIOError:
            return None
        except OSError as error:
            raise ValueError(str(error)) from error
        self._heard += data
        if b"\n" in self._heard:
            with contextlib.suppress(ValueError, RecursionError):
                asked = json.loads(self._heard.partition(b"\n")[0])
                if isinstance(asked, dict):
                    return cast("dict[str, Any]", asked)
        elif data and len(self._heard) <= _LONGEST:
            return None
        raise ValueError("not a request: one line of JSON with a `command` is expected")

    def answer(self, message: object) -> None:
        """Send *message*.  Whoever does not read it does not keep the daemon from its work."""
        with contextlib.suppress(OSError):
            self.socket.settimeout(_PATIENCE)
            self.socket.sendall(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        """Hang up."""
        self.socket.close()


class Control:
    """The daemon's end.  Made only under the lock: a socket that is already there belongs to a dead daemon."""

    def __init__(self, state_dir: Path) -> None:
        self._path = socket_path(state_dir)
        self._path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX)
        before = os.umask(0o177)  # it must not be open to others even for an instant
        try:
            self.socket.bind(str(self._path))
        finally:
            os.umask(before)
        self.socket.listen(16)
        self.socket.setblocking(False)
        # With no descriptor left a connection could not even be refused, and would wake the daemon again at once.
        self._spare = os.open(os.devnull, os.O_RDONLY)

    def accept(self) -> Client | None:
        """The next client; None when it has gone, may not ask, or cannot be served."""
        try:
            sock, _ = self.socket.accept()
        except BlockingIOError:
            return None
        except OSError:
            os.close(self._spare)
            with contextlib.suppress(OSError):
                self.socket.accept()[0].close()
            self._spare = os.open(os.devnull, os.O_RDONLY)
            return None
        sock.setblocking(False)
        client = Client(sock)
        uid = _peer(sock)[1]
        if uid not in (0, os.geteuid()):
            client.answer({"error": f"user {uid} may not control this daemon"})
            client.close()
            return None
        return client

    def close(self) -> None:
        """Listen no more."""
        self._path.unlink(missing_ok=True)
        self.socket.close()
        os.close(self._spare)


def ask(state_dir: Path, command: str, argument: str = "", timeout: float | None = _TIMEOUT) -> dict[str, Any]:
    """What the daemon of *state_dir* answers to *command*.  NotRunning when there is none, Refused when it will not."""
    with _connect(state_dir) as sock:
        sock.settimeout(timeout)
        answer = _converse(sock, command, argument)[0]
    if "refused" in answer:
        raise Refused(answer["refused"])
    return answer


def runs(state_dir: Path) -> bool:
    """Whether a daemon answers on *state_dir*."""
    try:
        ask(state_dir, "ping")
    except (NotRunning, OSError):
        return False
    return True


def ask_to_stop(state_dir: Path) -> dict[str, Any]:
    """Ask the daemon to stop, wait until it has, and return its last words.  NotRunning when there is none."""
    with _connect(state_dir) as sock:
        pid = _peer(sock)[0]
        process = None
        with contextlib.suppress(OSError, AttributeError):  # on a system without pidfds the last answer has to do
            # Held before the request, so that the number cannot have become another process's.
            process = os.pidfd_open(pid)
        answer = _converse(sock, "stop", lines=2)
        if process is not None:
            select.select([process], [], [])
            os.close(process)
        return answer[1]


def _connect(state_dir: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.connect(str(socket_path(state_dir)))
    except OSError as error:
        sock.close()
        if isinstance(error, PermissionError):
            raise NotRunning(f"the daemon on {state_dir} belongs to another user") from error
        raise NotRunning(f"no chicoryd runs on {state_dir}; start one with: chicoryd start -c FILE") from error
    return sock


def _converse(sock: socket.socket, command: str, argument: str = "", lines: int = 1) -> list[dict[str, Any]]:
    heard: list[dict[str, Any]] = []
    with contextlib.suppress(ConnectionError):  # it may refuse before it was asked; its answer says why
        sock.sendall(json.dumps({"command": command, "argument": argument}).encode() + b"\n")
    with contextlib.suppress(ConnectionError), sock.makefile("rb") as answers:
        for line in itertools.islice(answers, lines):
            heard.append(json.loads(line))  # noqa: PERF401  # if it dies, what it had said by then still counts
    if heard and "error" in heard[0]:
        raise PermissionError(heard[0]["error"])
    if len(heard) < lines:
        raise NotRunning("the daemon died before it had answered; its log may say why")
    return heard


def _peer(sock: socket.socket) -> tuple[int, int]:
    """Pid and user of the other side; pid 0 where the system does not tell."""
    if sys.platform == "linux":
        pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        return pid, uid
    return 0, os.geteuid()  # the mode of the socket alone keeps others out
