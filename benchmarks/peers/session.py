"""One run of one queue: its workers and its producer, as processes of its own environment."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs

from benchmarks import proc
from benchmarks.peers import journal
from benchmarks.peers.journal import Event
from benchmarks.peers.programs.work import PROBE, RECORD
from benchmarks.peers.roster import OURS, PROGRAMS, Peer
from benchmarks.process import environment

_LOOK = 0.01
_PRODUCING = 120.0
_STOPPING = 15.0
# Memory, where there is some to write to: a disk would be measured, too.
_SHM = Path("/dev/shm")


class Failed(Exception):
    """A queue did not do what it was told; the message is for the table."""


@attrs.frozen(kw_only=True)
class Job:
    """What a run is to be: where, with how many processes; whether results are kept, tasks wait, or are due later."""

    redis: str
    broker: str
    processes: int
    results: bool = True
    waiting: bool = False
    delays: bool = False


class Session:
    """A queue that can be told to work, with a journal and a directory for this run alone."""

    def __init__(self, peer: Peer, job: Job, directory: Path) -> None:
        self.peer = peer
        self.journal = directory / "journal"
        self._log = directory / "log"
        self._environment = {
            **environment(),
            "PYTHONPATH": os.pathsep.join([str(PROGRAMS), *(_our_path() if peer.key == OURS else [])]),
            "PEER_REDIS": job.redis,
            "PEER_BROKER": job.broker,
            "PEER_RESULTS": str(int(job.results)),
            "PEER_PROCESSES": str(job.processes),
            "PEER_WAITING": str(int(job.waiting)),
            "PEER_DELAYS": str(int(job.delays)),
            "PEER_DIRECTORY": str(directory),
            "PEER_JOURNAL": str(self.journal),
        }
        self._directory = directory
        self._workers: list[tuple[list[str], subprocess.Popen[bytes]]] = []

    @property
    def pids(self) -> list[int]:
        """All processes of the workers that run."""
        return [pid for _, worker in self._workers if worker.poll() is None for pid in proc.family(worker.pid)]

    def enqueue(self, how: str, kind: str, count: int, *more: float) -> dict[str, Any]:
        """Send tasks; what the program says of it."""
        return self._ask("enqueue", how, kind, count, *map(repr, more))

    def work(self) -> None:
        """Start the workers, the way its users would."""
        for command in self._ask("commands"):
            self._workers.append((command, self._start(command)))

    def mend(self) -> bool:
        """Start again each worker command that has ended, as an init system does; returns whether there was any."""
        ended = [number for number, (_, worker) in enumerate(self._workers) if worker.poll() is not None]
        for number in ended:
            command, _ = self._workers[number]
            self._workers[number] = (command, self._start(command))
        return bool(ended)

    def get_ready(self, within: float) -> None:
        """Start the workers, and return when one has done something; Failed when none has in time."""
        self.work()
        self.enqueue("probe", "noop", 1)
        if not self.await_fact(lambda: self._records() > 0, within):
            raise Failed(f"did nothing within {within:g} s")

    def events(self) -> list[Event]:
        """What tasks have written down so far, the probe left out."""
        return [event for event in journal.read(self.journal) if event.number != PROBE]

    def await_records(self, count: int, within: float) -> bool:
        """Whether there were so many records in time, the probe's included."""
        return self.await_fact(lambda: self._records() >= count, within)

    def await_ended(self, count: int, within: float, *, mending: bool = False) -> bool:
        """Whether the tasks 0 to *count* - 1 have all ended in time; *mending*: ended workers are started again."""

        def ended() -> bool:
            if mending:
                self.mend()
            return self._records() >= count and not journal.lost(self.events(), count)

        return self.await_fact(ended, within)

    def await_fact(self, holds: Callable[[], bool], within: float) -> bool:
        """Whether *holds* in time; Failed when no worker runs any more."""
        deadline = time.monotonic() + within
        while not holds():
            if time.monotonic() > deadline:
                return False
            if self._workers and all(worker.poll() is not None for _, worker in self._workers):
                raise Failed(f"its workers have ended: {self._last_words()}")
            time.sleep(_LOOK)
        return True

    def stop(self) -> float:
        """SIGTERM to each worker command, SIGKILL to what is left after a while; returns the seconds it took."""
        began = time.monotonic()
        everyone = self.pids
        for _, worker in self._workers:
            worker.terminate()
        for _, worker in self._workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(max(0.1, began + _STOPPING - time.monotonic()))
        seconds = time.monotonic() - began
        # Some leave children behind.
        for pid in everyone:
            with contextlib.suppress(ProcessLookupError):
                if os.getpgid(pid) in {worker.pid for _, worker in self._workers}:
                    os.kill(pid, signal.SIGKILL)
        for _, worker in self._workers:
            worker.wait()
        self._workers.clear()
        return seconds

    def _records(self) -> int:
        return self.journal.stat().st_size // RECORD.size if self.journal.exists() else 0

    def _start(self, command: list[str]) -> "subprocess.Popen[bytes]":
        with self._log.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                env=self._environment,
                # A group of its own tells its processes from those of anybody else who was given a freed pid.
                start_new_session=True,
            )

    def _ask(self, *words: object) -> Any:
        what = " ".join(map(str, words[:3]))
        try:
            done = subprocess.run(
                [self.peer.python, str(PROGRAMS / "program.py"), f"with_{self.peer.key}", *map(str, words)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                cwd=self._directory,
                env=self._environment,
                timeout=_PRODUCING,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{what}: not done within {_PRODUCING:g} s") from error
        if done.returncode or not done.stdout:
            raise Failed(f"{what}: {(done.stderr.splitlines() or [f'exit code {done.returncode}, no word why'])[-1]}")
        return json.loads(done.stdout.splitlines()[-1])

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return lines[-1] if lines else "no word why"


@contextmanager
def session(peer: Peer, job: Job) -> Generator[Session]:
    """A session whose workers live at most as long as the block."""
    directory = Path(tempfile.mkdtemp(prefix="chicory-peers-", dir=_SHM if os.access(_SHM, os.W_OK) else None))
    opened = Session(peer, job, directory)
    try:
        yield opened
    finally:
        opened.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _our_path() -> list[str]:
    root = PROGRAMS.parents[2]
    return [str(root), str(root / "supervisor")]
