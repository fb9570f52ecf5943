"""Real daemons with made-up children, in private directories."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PATIENCE = 30.0


class Daemon:
    """A chicoryd that a test starts, and what its children wrote down."""

    def __init__(self, home):
        self.home = home
        self.config = home / "chicory.toml"
        self.fakes = home / "fakes"
        self.fakes.mkdir()
        self.state_dir = home / ".chicory"
        self.config.write_text("[supervisor]\nworkers = 2\n")
        self.process = None
        self.log_path = home / "log"
        self.environ = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("CHICORY", "NOTIFY"))},
            "FAKES": str(self.fakes),
            "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent.parent), str(HERE.parent.parent / "supervisor")]),
        }

    def tell(self, who, words):
        """Make children of a role or slot behave in some way when they start next."""
        (self.fakes / who).write_text(words)

    def start(self, stderr=None, inherited=(), wrapper=()):
        with contextlib.ExitStack() as stack:
            if stderr is None:
                stderr = stack.enter_context(self.log_path.open("ab"))
            self.process = subprocess.Popen(
                [*wrapper, sys.executable, str(HERE / "launcher.py"), str(self.config)],
                env=self.environ,
                stderr=stderr,
                pass_fds=inherited,
                start_new_session=True,
            )
        return self

    def run(self, *arguments):
        """The real command line, to its end."""
        command = [sys.executable, "-m", "chicoryd", *arguments]
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=PATIENCE, check=False)

    def command(self, name, *flags):
        return self.run(name, "-c", str(self.config), *flags)

    def status(self):
        return json.loads(self.command("status", "--json").stdout)

    def facts(self, **wanted):
        path = self.fakes / "facts"
        lines = path.read_bytes().splitlines() if path.exists() else []
        facts = [json.loads(line) for line in lines]
        return [fact for fact in facts if all(fact.get(key) == value for key, value in wanted.items())]

    def until(self, fact):
        """Wait until *fact* is true, and return what it gave."""
        end = time.monotonic() + PATIENCE
        while not (found := fact()):
            assert time.monotonic() < end, f"did not come true; facts: {self.facts()}; log: {self.log()}"
            time.sleep(0.005)
        return found

    def until_noted(self, count=1, **wanted):
        return self.until(lambda: len(found := self.facts(**wanted)) >= count and found)

    def until_ready(self, children=5):
        """Wait until the daemon calls itself ready, and each of its *children* too."""
        self.until(lambda: "chicoryd: ready after" in self.log() and self.log().count(" is ready after") >= children)
        return self

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self):
        return self.process.wait(PATIENCE)

    def alive(self, pid):
        """Whether *pid* runs; a zombie does not."""
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    def left(self):
        """The children that run."""
        return [pid for pid in self.pids() if self.alive(pid)]

    def log(self):
        return self.log_path.read_text() if self.log_path.exists() else ""

    def pids(self):
        noted = [fact["pid"] for fact in self.facts(what="start")]
        # The template is no fake, and is known by the log alone.
        return sorted({*noted, *map(int, re.findall(r"chicoryd: \S+ started, pid (\d+)", self.log()))})

    def kill_all(self):
        """After a test nothing may be left, not even of a daemon that failed it."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in [*self.pids(), *(pid for fact in self.facts(what="runaway") for pid in fact["children"])]:
            with contextlib.suppress(OSError):  # it has exited, and has no environ to read
                # The number may have become someone else's; the name of a fake has the directory of this test in it.
                if str(self.home).encode() in Path(f"/proc/{pid}/environ").read_bytes():
                    os.killpg(pid, signal.SIGKILL)


@pytest.fixture
def home():
    # Not tmp_path: the path of a unix socket may have 107 bytes.
    path = Path(tempfile.mkdtemp(prefix="chd-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def daemon(home):
    daemon = Daemon(home)
    yield daemon
    daemon.kill_all()


@pytest.fixture
def notify(daemon):
    """A service manager that writes down what it is told."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.settimeout(PATIENCE)
    name = f"chicoryd-test-{os.urandom(8).hex()}"
    sock.bind(f"\0{name}")
    daemon.environ["NOTIFY_SOCKET"] = f"@{name}"
    with sock:
        yield sock
