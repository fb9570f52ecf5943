"""A whole chicoryd: supervisor, scheduler and workers, on the server of this run."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.process import environment
from benchmarks.server import Server

_ROOT = Path(__file__).parents[1]
_PATIENCE = 60.0
# From the first lease until importing and joining have left nothing to do.
_SETTLE = 1.0

_SETTINGS = """\
app = "{app}"

[broker]
type = "redis"

[broker.redis]
url = "{url}"

[supervisor]
workers = {workers}
start_method = "{method}"
state_dir = "{state}"
"""


@contextmanager
def running_daemon(
    server: Server, workers: int, *, app: str = "benchmarks.tasks:app", method: str = "template"
) -> Generator[int]:
    """The pid of a chicoryd that runs *app*, all of whose workers have their lease; *method* is how they start."""
    server.flush()
    with tempfile.TemporaryDirectory(prefix="chicory-bench-") as directory:
        settings = Path(directory, "chicory.toml")
        state = Path(directory, "state")
        text = _SETTINGS.format(app=app, url=server.url, workers=workers, method=method, state=state)
        settings.write_text(text)
        with Path(directory, "log").open("w+") as log:
            command = [sys.executable, "-m", "chicoryd", "start", "-c", str(settings)]
            daemon = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=_ROOT, env=environment()
            )
            try:
                _await_leases(server, workers, daemon, Path(log.name))
                yield daemon.pid
            finally:
                daemon.terminate()
                try:
                    daemon.wait(_PATIENCE)
                finally:
                    daemon.kill()


def _await_leases(server: Server, workers: int, daemon: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    with server.connect() as connection:
        while connection.call("ZCARD", "chicory:leases:default") < workers:
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"chicoryd has not got {workers} workers to work:\n{log.read_text()[-2000:]}")
            time.sleep(0.05)
    time.sleep(_SETTLE)
