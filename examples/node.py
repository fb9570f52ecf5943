"""A private RabbitMQ node: with a name, ports, directories and a port mapper of its own, on loopback.

It needs no configuration and leaves nothing behind, so anybody with rabbitmq-server installed can try Chicory on it.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

# Debian's command on PATH changes to a user of its own; the script behind it runs as whoever calls it.
_SCRIPT = "/usr/lib/rabbitmq/bin/rabbitmq-server"
_START = 60.0
_END = 10.0


class NodeFailed(Exception):
    """There is no RabbitMQ to start, or it does not start."""


class Node:
    """One node, which keeps its address and its data over `kill` and `start`.

    beside: another node, with whose port mapper and cookie it shares a cluster once it has joined.
    """

    def __init__(self, beside: "Node | None" = None) -> None:
        self._script = script()
        self.directory = Path(tempfile.mkdtemp(prefix="chicory-rabbitmq-"))
        self.port, self._dist_port = _free_port(), _free_port()
        self._beside = beside
        self._epmd_port = beside._epmd_port if beside else _free_port()
        self.name = f"chicory{secrets.token_hex(4)}@localhost"
        self._cookie = beside._cookie if beside else secrets.token_hex(16)
        for name in ("mnesia", "log", "home"):
            (self.directory / name).mkdir()
        (self.directory / "plugins").write_text("[].\n")
        self.configure("log.console = false", "log.file.level = warning")
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory / "home"),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.directory / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self.directory / "no-such-file"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                f"-setcookie {self._cookie} -kernel inet_dist_use_interface {{127,0,0,1}} -start_epmd false"
                # A machine that is shared has no processor to waste on busy waiting.
                " +sbwt none +sbwtdcpu none +sbwtdio none"
            ),
            "RABBITMQ_CTL_ERL_ARGS": f"-setcookie {self._cookie}",
        }
        self._epmd: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._started = False

    def configure(self, *lines: str) -> None:
        """Add *lines* to its rabbitmq.conf, which it reads when it is started."""
        with (self.directory / "rabbitmq.conf").open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    @property
    def ports(self) -> tuple[int, int, int]:
        """Where it listens: for clients, for other nodes, and its port mapper."""
        return self.port, self._dist_port, self._epmd_port

    def url(self, vhost: str = "") -> str:
        """What a client is told."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{vhost}"

    def start(self) -> None:
        """Return when it answers."""
        assert self._process is None, "the node runs already"
        if self._epmd is None and self._beside is None:
            command = ["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"]
            self._epmd = subprocess.Popen(command, env=self._environ, stdin=subprocess.DEVNULL)
        with (self.directory / "log" / "console").open("ab") as console:
            # A group of its own, because the node is more than one process.
            self._process = subprocess.Popen(
                [self._script],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START
        while not self._runs():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self.directory / "log" / "console").read_text(errors="replace")
                self.kill()
                raise NodeFailed(f"rabbitmq-server does not start:\n{said[-2000:]}")
            # A node cannot tell when it is ready.
            time.sleep(0.05)
        self._started = True

    def join(self) -> None:
        """Become a member of the other node's cluster, empty; both run."""
        assert self._beside is not None, "there is no node beside"
        self.evaluate(
            f"rabbit:stop(), rabbit_mnesia:reset(), rabbit_mnesia:join_cluster('{self._beside.name}', disc),"
            " rabbit:start(), true."
        )

    @property
    def pid(self) -> int:
        """The process that was started; the others of the node are in its group."""
        assert self._process is not None, "the node does not run"
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it was started and not killed since."""
        return self._process is not None

    def kill(self) -> None:
        """End it without a word, as the kernel would."""
        if self._process is not None:
            group = self._process.pid
            os.killpg(group, signal.SIGKILL)
            self._process.wait(20)
            # The others end a little later, and until then they hold the ports.
            deadline = time.monotonic() + _END
            with suppress(ProcessLookupError):
                while time.monotonic() < deadline:
                    os.killpg(group, 0)
                    time.sleep(0.005)
            self._process = None
            self._started = False

    def evaluate(self, expressions: str) -> str:
        """What Erlang expressions come to in the node, as text."""
        done = self._erl_call(expressions)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith("{ok, "), done.stdout
        return done.stdout.removeprefix("{ok, ").removesuffix("}")

    def _runs(self) -> bool:
        return self._erl_call("rabbit:is_running().").stdout == "{ok, true}"

    def _erl_call(self, expressions: str) -> subprocess.CompletedProcess[str]:
        # Under a random name, because a node does not let in two of one name at a time.
        command = ["erl_call", "-r", "-address", f"127.0.0.1:{self._dist_port}", "-c", self._cookie, "-e"]
        while True:
            done = subprocess.run(
                command,
                env=self._environ,
                input=f"{expressions}\n",
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            # Now and then a handshake fails, and then nothing was evaluated.
            running = self._process is not None and self._process.poll() is None
            if "failed to connect" not in done.stderr or not self._started or not running:
                return done

    def remove(self) -> None:
        """End it, and delete its data."""
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait(20)
        shutil.rmtree(self.directory, ignore_errors=True)


def script() -> str:
    """The script that starts a node; NodeFailed where something is missing."""
    found = _SCRIPT if Path(_SCRIPT).exists() else shutil.which("rabbitmq-server")
    # erl_call speaks to a node in milliseconds, where rabbitmqctl takes seconds to start.
    if found is None or any(shutil.which(tool) is None for tool in ("epmd", "erl_call")):
        raise NodeFailed("rabbitmq-server is not installed; run: apt-get install rabbitmq-server")
    return found


@contextmanager
def private_node() -> Generator[Node]:
    """A node that lives as long as the block, started."""
    node = Node()
    try:
        node.start()
        yield node
    finally:
        node.remove()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
