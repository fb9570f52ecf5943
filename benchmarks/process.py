"""Processes beside this one: started, waited for, and ended by their own pid."""

import json
import os
import subprocess
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# The variable in which a process beside this one finds the server.
URL = "CHICORY_BENCHMARK_URL"

_ROOT = Path(__file__).parents[1]
_PATIENCE = 120.0


def environment(**settings: str) -> dict[str, str]:
    """What a child is given: *settings*, and none of whoever runs this, for they must not change what is measured."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("CHICORY")}
    return {**inherited, **settings, "PYTHONPATH": os.pathsep.join([str(_ROOT), str(_ROOT / "supervisor")])}


class Process:
    """A Python module that runs, with a pipe each way."""

    def __init__(self, module: str, arguments: Sequence[str], settings: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT,
            env=environment(**settings),
            text=True,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def await_ready(self) -> None:
        """Return when it has said "ready"."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line == "ready\n":
                return
        raise SystemExit(f"{self._process.args} ended before it was ready")

    def finish(self) -> dict[str, Any]:
        """Close its standard input and return its last words."""
        out, _ = self._process.communicate(timeout=_PATIENCE)
        if self._process.returncode or not out:
            raise SystemExit(f"{self._process.args} ended with {self._process.returncode} and said {out!r}")
        return json.loads(out.splitlines()[-1])

    def terminate(self) -> None:
        """Ask it to end, and wait until it has."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_PATIENCE)
            finally:
                self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def process(module: str, *arguments: object, url: str, **settings: str) -> Generator[Process]:
    """A process that lives at most as long as the block."""
    child = Process(module, [str(argument) for argument in arguments], {URL: url, **settings})
    try:
        yield child
    finally:
        child.terminate()
