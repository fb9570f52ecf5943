"""A private redis-server: a unix socket in a directory of its own, nothing on disk, gone with the block."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import attrs

from benchmarks.bare import Bare

_START = 10.0


@attrs.frozen
class Server:
    """A server that runs; *port* is where it also listens on loopback, or 0."""

    path: str
    port: int = 0

    @property
    def url(self) -> str:
        """What an app is told."""
        return f"unix://{self.path}"

    def connect(self) -> Bare:
        """A bare connection."""
        return Bare(self.path)

    def flush(self) -> None:
        """Empty the server, so that no run pays for the one before."""
        with self.connect() as bare:
            bare.call("FLUSHALL", "SYNC")

    def info(self, section: str) -> dict[str, str]:
        """One section of INFO."""
        with self.connect() as bare:
            lines = bare.call("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def now(self) -> float:
        """Unix seconds by the server's clock."""
        with self.connect() as bare:
            seconds, micros = bare.call("TIME")
        return int(seconds) + int(micros) / 1e6


@contextmanager
def private_server(*, loopback: bool = False) -> Generator[Server]:
    """A server that lives as long as the block; *loopback*: it also listens on a free port."""
    binary = shutil.which("redis-server")
    if binary is None:
        raise SystemExit("redis-server is not on PATH; install it with: apt-get install redis-server")
    # Short, because the path of a unix socket may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="chicory-bench-") as directory:
        path = str(Path(directory, "s"))
        port = _free_port() if loopback else 0
        command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--dir", directory]
        command += ["--unixsocket", path, "--unixsocketperm", "700"]
        command += ["--save", "", "--appendonly", "no", "--daemonize", "no", "--logfile", str(Path(directory, "log"))]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            _await_answer(process, path)
            yield Server(path, port)
        finally:
            process.terminate()
            process.wait(_START)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _await_answer(process: "subprocess.Popen[bytes]", path: str) -> None:
    deadline = time.monotonic() + _START
    while True:
        try:
            with Bare(path) as bare:
                bare.call("PING")
                return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"redis-server does not start ({error})") from error
            time.sleep(0.01)
