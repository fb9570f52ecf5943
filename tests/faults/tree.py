"""A chicoryd with all its processes, as a test starts, hurts and asks it."""

import contextlib
import inspect
import json
import math
import os
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import tomllib
from pathlib import Path

import trio

from chicory import BackendType, BrokerType, Chicory
from chicory.config import BackendConfig, BrokerConfig, ChicoryConfig, RedisBrokerConfig
from chicoryd import control
from tests.faults.ledger import Ledger

ROOT = Path(__file__).parents[2]
PATIENCE = 40.0

SETTINGS = {
    # Short, so that what waits for a lease waits for seconds only.
    "broker.redis": {"block_ms": 500, "claim_min_idle_ms": 3000},
    "worker": {"concurrency": 8, "heartbeat_interval": 0.5, "shutdown_timeout": 10.0, "cancel_grace": 1.0},
    "supervisor": {"workers": 3},
}


async def until(fact, what, patience=PATIENCE):
    """Wait until *fact* gives something true, and return it."""
    deadline = trio.current_time() + patience
    while True:
        found = fact()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        assert trio.current_time() < deadline, f"in {patience:g} s it did not come true that {what}"
        await trio.sleep(0.01)


class Tree:
    """One daemon on the server at *url*.

    beside: another tree, whose queues and books it shares, as a second host does.
    settings: tables and keys on top of SETTINGS.
    """

    def __init__(self, url, app="tests.faults.tasks:app", *, beside=None, **settings):
        # Not below pytest's own directory: the path of a unix socket may have 107 bytes.
        self.home = Path(tempfile.mkdtemp(prefix="chf-"))
        self.state_dir = self.home / "state"
        self.config = self.home / "chicory.toml"
        self.log_path = self.home / "log"
        # While this file is there, the app cannot be imported.
        self.broken = self.home / "broken"
        self.prefix = beside.prefix if beside else self.home.name.replace("_", "-")
        self.url = url
        self.app_name = app
        self.ledger = beside.ledger if beside else Ledger(self.home / "ledger")
        self.process = None
        # More variables for all its processes.
        self.variables = {}
        # Tasks that were lost as at-most-once tasks may be: nobody counts them.
        self.forgiven = 0
        self._watch = _Watch(self.home / "watch", self.ledger)
        self.configure(**settings)
        self._client_config = self.client_config()

    def client_config(self):
        """What the other end is told."""
        redis = RedisBrokerConfig(url=self.url, key_prefix=self.prefix, publish_timeout=20.0)
        return ChicoryConfig(
            broker=BrokerConfig(type=BrokerType.REDIS, redis=redis), backend=BackendConfig(type=BackendType.REDIS)
        )

    def configure(self, **settings):
        """Write the settings; a daemon that runs does not hear of it by itself."""
        tables = {name: dict(table) for name, table in SETTINGS.items()}
        tables["broker"] = {"type": "redis"}
        tables["broker.redis"] |= {"url": self.url, "key_prefix": self.prefix}
        for name, table in settings.items():
            tables.setdefault(name.replace("redis", "broker.redis"), {}).update(table)
        tables["supervisor"]["state_dir"] = str(self.state_dir)
        lines = [f"app = {json.dumps(self.app_name)}"]
        for name in sorted(tables):
            given = {key: value for key, value in tables[name].items() if value is not None}
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in given.items())]
        self.config.write_text("\n".join(lines) + "\n")

    # -- the daemon

    @property
    def environ(self):
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("CHICORY", "NOTIFY", "COVERAGE"))
        }
        return {
            **kept,
            **self.variables,
            "CHICORY_CONFIG": str(self.config),
            "FAULTS_LEDGER": str(self.ledger.path),
            "FAULTS_WATCH": str(self._watch.path),
            "FAULTS_BROKEN": str(self.broken),
            "PYTHONPATH": os.pathsep.join([str(self.home), str(ROOT), str(ROOT / "supervisor")]),
        }

    def command(self, *words):
        return [sys.executable, "-m", "chicoryd", *words, "-c", str(self.config)]

    def run(self, *words):
        """What a command to the daemon says, and how it ends."""
        command = self.command(*words)
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, timeout=PATIENCE, check=False)

    def start(self, wrapper=(), stderr=None):
        """Start it, and not wait.  *stderr*: a descriptor in the place of the file."""
        assert self.process is None or self.process.poll() is not None
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*wrapper, *self.command("start")],
                env=self.environ,
                cwd=self.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log if stderr is None else stderr,
                start_new_session=True,
            )
        return self

    async def ready(self):
        """Wait until every worker is ready and holds its lease."""
        workers = self.settings("supervisor", "workers")
        await until(lambda: self._count_ready() == workers, "all workers are ready")
        async with self.client() as app:

            async def joined():
                members = await app.broker._pool.call("ZRANGE", f"{self.prefix}:leases:default", 0, -1)
                # A worker that has lost a lease takes the next one under its name and a number.
                held = {member.decode().partition("+")[0] for member in members}
                return {slot["consumer"] for slot in self.workers()} <= held

            await until(joined, "all workers hold a lease")
        return self

    def settings(self, table, key):
        found = tomllib.loads(self.config.read_text())
        for part in table.split("."):
            found = found[part]
        return found[key]

    def status(self):
        """What the daemon says of itself; None when there is none."""
        try:
            return control.ask(self.state_dir, "status")
        except (control.NotRunning, OSError):
            return None

    def workers(self):
        """The slots of the workers, as status shows them."""
        status = self.status()
        return [slot for slot in status["slots"] if slot["slot"].startswith("worker")] if status else []

    def _count_ready(self):
        assert self.process.poll() is None, f"chicoryd ended with {self.process.poll()}:\n{self.log()[-3000:]}"
        return sum(slot["state"] == "ready" for slot in self.workers())

    def pids(self):
        """The pids of the workers that are ready."""
        return [slot["pid"] for slot in self.workers() if slot["state"] == "ready"]

    def log(self):
        return self.log_path.read_text() if self.log_path.exists() else ""

    def zombies(self):
        """The children of this tree's processes that have ended and were not waited for."""
        mine = set(self.left())
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has just ended
                state, parent = path.read_text().rpartition(")")[2].split()[:2]
                if state == "Z" and int(parent) in mine:
                    found.append(int(path.parent.name))
        return found

    def left(self):
        """The processes of this tree, by the path of its settings in their environment; zombies are none."""
        wanted = f"CHICORY_CONFIG={self.config}".encode()
        found = []
        for path in Path("/proc").iterdir():
            if path.name.isdigit():
                with contextlib.suppress(OSError):  # it has just ended
                    if wanted in (path / "environ").read_bytes().split(b"\0"):
                        found.append(int(path.name))
        return found

    # -- what is done to it

    def kill(self, pid):
        """SIGKILL to one process, noted."""
        # It may begin something in the moment between the note and its death, and nothing afterwards.
        fault = self.ledger.fault("SIGKILL", pid, lasting=math.inf)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return fault

    def kill_all(self):
        """SIGKILL to all processes at once; the supervisor first, so that it replaces nobody."""
        pids = self.left()
        pids.sort(key=lambda pid: pid != self.process.pid)
        for pid in pids:
            self.kill(pid)
        self.process.wait(PATIENCE)

    async def stop(self):
        """SIGTERM, and its exit code once all is gone."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = await self.gone()
        assert self.left() == [], "processes are left"
        return code

    async def rest(self):
        """Go on with a new daemon, whose slots have no deaths to be slow about."""
        self.ledger.new_page()
        await self.stop()
        await self.start().ready()

    async def gone(self, patience=PATIENCE):
        """The exit code, waited for."""
        await until(lambda: self.process.poll() is not None, "the daemon has ended", patience)
        return self.process.returncode

    def remove(self):
        """After a test nothing may be left, not even of a daemon that failed it; with FAULTS_KEEP its files are."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for pid in self.left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._watch.close()
        if os.environ.get("FAULTS_KEEP"):
            print("kept", self.home)
            return
        shutil.rmtree(self.home, ignore_errors=True)

    # -- the other end

    def client(self, url=None):
        """An app that sends to it and collects results."""
        return Chicory(url or self.url, config=self._client_config)


class _Watch:
    """Sees processes die: each holds a connection that the kernel closes for it."""

    def __init__(self, path, ledger):
        self.path = path
        self._ledger = ledger
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(128)
        self._ours, self._theirs = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._ours, selectors.EVENT_READ)
            open_lines = {}
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._ours:
                        for line in open_lines:
                            line.close()
                        return
                    if key.fileobj is self._listener:
                        line, _ = self._listener.accept()
                        peer = line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                        open_lines[line] = struct.unpack("3i", peer)[0]
                        selector.register(line, selectors.EVENT_READ)
                    else:
                        self._ledger.died(open_lines.pop(key.fileobj))
                        selector.unregister(key.fileobj)
                        key.fileobj.close()

    def close(self):
        self._theirs.send(b"x")
        self._thread.join(10)
        for end in (self._listener, self._ours, self._theirs):
            end.close()
