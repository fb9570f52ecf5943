"""The template of a generation: `python -m chicoryd.template module:function`.

It imports the app once and forks a scheduler or a worker whenever chicoryd asks, so that they start in a few
milliseconds, share the memory of all that was imported, and have the code that was there then.  A fork copies one
thread and every open file: what the import started or connected would be broken in the copy, or shared by all of them.
So it looks first, and rather does not fork.
"""

import array
import gc
import importlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chicoryd.child import last_words, live
from chicoryd.sink import say

LIFELINE = 3  # of the template, and then of each that it forks


def main() -> None:
    """Get ready, fork on request, and end when chicoryd says so or has gone; whoever is forked goes on from here."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    entry = sys.argv[1]
    sys.argv = [entry]
    line = socket.socket(fileno=int(os.environ.pop("CHICORYD_LIFELINE")))
    line.set_inheritable(False)
    with last_words():
        # Whatever is collected now leaves holes in pages that would be shared.
        gc.disable()
        with _noted_threads() as started:
            module = importlib.import_module(entry.partition(":")[0])
            preload: Callable[[], int] = getattr(module, "preload", lambda: 0)
            if code := preload():
                sys.exit(code)
            why = _obstacle(line.fileno(), started)
        if why:
            _send(line, t="unfit", why=why)
            return
        gc.collect()
        gc.freeze()
        _send(line, t="ready")
        asked = _serve(line)
    if asked is not None:
        gc.enable()
        if asked["words"]:
            os.environ["CHICORYD_LAST_WORDS"] = asked["words"]
        sys.argv = [asked["entry"]]
        with last_words():
            live(asked["entry"])


class _noted_threads:  # noqa: N801
    """Within this context: where each thread was started, as `file, line 3`, by thread."""

    def __enter__(self) -> dict[threading.Thread, str]:
        self._start = start = threading.Thread.start
        noted: dict[threading.Thread, str] = {}

        def noting(self: threading.Thread) -> None:
            frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
            while frame.f_code.co_filename == threading.__file__ and frame.f_back is not None:
                frame = frame.f_back
            noted[self] = f"{frame.f_code.co_filename}, line {frame.f_lineno}"
            start(self)

        threading.Thread.start = noting
        return noted

    def __exit__(self, *_: object) -> None:
        threading.Thread.start = self._start


def _obstacle(own: int, started: dict[threading.Thread, str]) -> str:
    """What forbids to fork, in words; empty when nothing does."""
    found = len(os.listdir("/proc/self/task"))
    if found > 1:
        living = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
        named = [f"{thread.name!r} (started in {started.get(thread, 'an unknown place')})" for thread in living]
        foreign = found - 1 - len(living)
        named += [f"{foreign} not of Python"] if foreign > 0 else []
        return f"{found - 1} more thread{'s' if found > 2 else ''} ran: {', '.join(named)}"
    return ", ".join(f"{what} was open" for fd in Path("/proc/self/fd").iterdir() if (what := _connection(fd, own)))


def _connection(fd: Path, own: int) -> str:
    """What the descriptor *fd* is, when no two processes may share it."""
    try:
        kind = str(fd.readlink())
    except OSError:  # the one that listed the directory
        return ""
    number = int(fd.name)
    if number <= 2 or number == own:
        return ""
    if kind == "anon_inode:[eventpoll]":
        return f"an event loop (descriptor {number})"
    if not kind.startswith("socket:"):
        return ""
    with socket.socket(fileno=os.dup(number)) as sock:
        try:
            return f"a connection to {_address(sock.getpeername())} (descriptor {number})"
        except OSError:
            return f"a socket on {_address(sock.getsockname())} (descriptor {number})"


def _address(address: object) -> str:
    return ":".join(map(str, address[:2])) if isinstance(address, tuple) else str(address or "this process")  # pyright: ignore[reportUnknownArgumentType]


def _serve(line: socket.socket) -> dict[str, Any] | None:
    """Fork as asked.  None when that is over; in who was forked, what was asked for."""
    heard = b""
    lifelines: list[int] = []
    while True:
        try:
            data, ancillary, _, _ = line.recvmsg(65536, socket.CMSG_SPACE(64 * array.array("i").itemsize))
        except OSError:  # a reset: chicoryd died
            return None
        for _, _, raw in ancillary:
            lifelines += array.array("i", raw)
        if not data:
            return None
        *lines, heard = (heard + data).split(b"\n")
        for message in map(json.loads, lines):
            if message["t"] == "stop":
                return None
            if message["t"] == "fork":
                lifeline = lifelines.pop(0)
                if _fork(lifeline):
                    line.detach()  # its number is the child's lifeline now
                    for other in lifelines:
                        os.close(other)
                    os.environ |= message["environ"]
                    Path("/proc/self/comm").write_text(message["title"])
                    return message
                os.close(lifeline)


def _fork(lifeline: int) -> bool:
    """True in the new child.  Forked twice, it is an orphan, and so becomes a child of chicoryd.

    If that fails, the lifeline closes without a word, which says it.
    """
    signals = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        child = os.fork()
    except OSError as error:
        say(f"chicoryd: cannot fork: {error.strerror}")
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return False
    if child:
        os.waitpid(child, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return False
    try:
        if os.fork():
            os._exit(0)
        os.setsid()
        os.dup2(lifeline, LIFELINE, inheritable=False)
        os.close(lifeline)
        for number in signals:
            # What the import of the app may have set; those that Python ignores, such as SIGPIPE, stay ignored.
            if callable(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
        os.write(LIFELINE, json.dumps({"t": "born", "pid": os.getpid()}).encode() + b"\n")
    except BaseException:
        os._exit(os.EX_OSERR)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return True


def _send(line: socket.socket, **message: object) -> None:
    line.sendall(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
