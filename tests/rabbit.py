"""Private RabbitMQ nodes for tests: each with a name, ports, directories and a port mapper of its own, on loopback.

A node takes seconds to start, so one serves a whole session, and every test takes a virtual host of its own.
"""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.servers import free_port, missing

# Debian's command on PATH changes to a user of its own; the script behind it runs as whoever calls it.
_SCRIPT = "/usr/lib/rabbitmq/bin/rabbitmq-server"
# User, virtual host, what may be declared, written and read, and who says so.
_PERMISSIONS = '<<"guest">>, <<"{}">>, <<".*">>, <<".*">>, <<".*">>, <<"tests">>'


class RabbitNode:
    """One node, which keeps its address and its data over `kill` and `start`."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="chicory-rabbit-"))
        self.port, self._epmd_port, self._dist_port = free_port(), free_port(), free_port()
        self.name = f"chicory{secrets.token_hex(4)}@localhost"
        self._cookie = secrets.token_hex(16)
        self._vhosts = 0
        for name in ("mnesia", "log", "home"):
            (self.directory / name).mkdir()
        (self.directory / "plugins").write_text("[].\n")
        (self.directory / "rabbitmq.conf").write_text("log.console = false\nlog.file.level = warning\n")
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

    @property
    def address(self) -> tuple[str, int]:
        """What `tests.proxy` connects to."""
        return ("127.0.0.1", self.port)

    @property
    def ports(self) -> tuple[int, int, int]:
        """Where it listens: for clients, for other nodes, and its port mapper."""
        return self.port, self._dist_port, self._epmd_port

    @property
    def pid(self) -> int:
        assert self._process is not None, "the node does not run"
        return self._process.pid

    def url(self, vhost: str = "") -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{vhost}"

    def start(self) -> None:
        """Return when it answers."""
        assert self._process is None, "the node runs already"
        if self._epmd is None:
            command = ["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"]
            self._epmd = subprocess.Popen(command, env=self._environ, stdin=subprocess.DEVNULL)
        with (self.directory / "log" / "console").open("ab") as console:
            # A group of its own, because the node is more than one process.
            self._process = subprocess.Popen(
                [script()],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while not self._runs():
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self.directory / "log" / "console").read_text(errors="replace")
                self.kill()
                raise RuntimeError(f"rabbitmq-server does not start:\n{said[-2000:]}")
            # A poll, as in tests.servers: a node cannot tell when it is ready.
            time.sleep(0.05)
        self._started = True

    def kill(self) -> None:
        """End it without a word, as the kernel would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(20)
            self._process = None
            self._started = False

    def restart(self) -> None:
        """Kill it and start it on the same address."""
        self.kill()
        self.start()

    def vhost(self) -> str:
        """The name of a new virtual host."""
        self._vhosts += 1
        name = f"t{self._vhosts}"
        self.evaluate(f'rabbit_vhost:add(<<"{name}">>, <<"tests">>).')
        self.evaluate(f"rabbit_auth_backend_internal:set_permissions({_PERMISSIONS.format(name)}).")
        return name

    def close_all_connections(self) -> None:
        """What an operator does with `rabbitmqctl close_all_connections`."""
        closing = '[rabbit_networking:close_connection(P, "by an operator") || P <- rabbit_networking:connections()]'
        self.evaluate(f"{closing}, true.")

    def set_memory_limit(self, fraction: float) -> None:
        """The share of memory above which the node takes nothing more; 0 raises the alarm at once."""
        self.evaluate(f"vm_memory_monitor:set_vm_memory_high_watermark({fraction}).")

    def delete_queue(self, vhost: str, queue: str) -> None:
        """Delete a queue as an operator would, whatever is in it."""
        name = f'rabbit_misc:r(<<"{vhost}">>, queue, <<"{queue}">>)'
        self.evaluate(
            f'{{ok, Q}} = rabbit_amqqueue:lookup({name}), rabbit_amqqueue:delete(Q, false, false, <<"tests">>), true.'
        )

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
        self.kill()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait(20)
        shutil.rmtree(self.directory, ignore_errors=True)


def script() -> str:
    """The script that starts a node; the test is skipped where there is none, or no erl_call to speak to it."""
    for tool in ("epmd", "erl_call"):
        if shutil.which(tool) is None:
            missing(f"{tool} is not on PATH; apt-get install rabbitmq-server")
    if Path(_SCRIPT).exists():
        return _SCRIPT
    return shutil.which("rabbitmq-server") or missing("no rabbitmq-server; apt-get install rabbitmq-server")


@contextmanager
def running_node() -> Iterator[RabbitNode]:
    """A node that lives as long as the block, started."""
    script()
    node = RabbitNode()
    try:
        node.start()
        yield node
    finally:
        node.remove()


@pytest.fixture(scope="session")
def rabbit_node() -> Iterator[RabbitNode]:
    """One node for the whole session."""
    with running_node() as node:
        yield node
