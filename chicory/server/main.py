"""The process that holds the embedded broker's server: starts it, says when it serves, and ends it last.

It needs the standard library alone, so that it costs little beside the server it watches.
"""

import os
import sys
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chicory.embedded import find_server
from chicory.errors import ConfigError
from chicory.server.line import Line
from chicory.server.lock import StateLock
from chicory.server.process import Server, prepare
from chicoryd.sink import say

BEAT = 5.0  # seconds between two looks at whether the server still answers
STOP_DEADLINE = 20.0  # seconds the server may take to flush its file
# Seconds a server whose chicoryd was killed goes on for the workers, which finish what they run: their default
# shutdown_timeout and cancel_grace together.
ORPHANED = 35.0
PATIENCE = 15.0  # seconds to wait for a predecessor that is just ending

OK, INTERNAL, ALREADY_RUNNING, BAD_CONFIG = 0, 70, 75, 78


def main() -> int:
    """Run the server until chicoryd says stop; returns the exit code."""
    try:
        return _run(os.environ)
    except ConfigError as error:
        say(f"chicory server: {error}")
        return BAD_CONFIG


def find_state_dir(environ: Mapping[str, str]) -> Path:
    """Where the settings put the embedded broker; `.chicory` beside the configuration file when they are silent."""
    if said := environ.get("CHICORY_BROKER_STATE_DIR"):
        return Path(said).expanduser().absolute()
    config = environ.get("CHICORY_CONFIG")
    if not config:
        return Path.cwd() / ".chicory"
    said = Path(_broker_table(Path(config)).get("state_dir", ".chicory"))
    return Path(config).absolute().parent / said.expanduser()


def _broker_table(config: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(config.read_text(encoding="utf-8")).get("broker", {})
    except OSError as error:
        raise ConfigError(f"cannot read {config}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{config} is not TOML: {error}") from error


def _run(environ: Mapping[str, str]) -> int:
    line = Line(environ)
    found = find_server(environ)
    state_dir = find_state_dir(environ)
    prepare(state_dir)
    lock = StateLock(state_dir / "redis.lock")
    end = time.monotonic() + PATIENCE
    while not lock.take():
        heard = line.wait(0.02)
        if heard.stop or heard.orphaned:
            return OK
        if time.monotonic() >= end:
            say(
                f"chicory server: another one, process {lock.holder().get('shim')}, runs on {state_dir};"
                " stop its daemon, or choose another broker.state_dir"
            )
            return ALREADY_RUNNING
    server = Server(found, state_dir, hold=lock.fd)
    lock.note(shim=os.getpid(), server=server.pid)
    watch = _Watch(line, lock, server)
    if watch.until_it_serves():
        watch.until_stop()
    return watch.end()


class _Watch:
    """The life of one server: loading, serving, perhaps orphaned, ended."""

    def __init__(self, line: Line, lock: StateLock, server: Server) -> None:
        self._line = line
        self._lock = lock
        self._server = server

    def until_it_serves(self) -> bool:
        """Wait until it has read its file, however long that is; False when there is no more reason to."""
        beat = time.monotonic() + BEAT
        while not self._server.answers():
            # A short wait, since nothing tells when it is ready; a server that starts empty needs a few of them.
            heard = self._line.wait(0.01)
            if heard.stop or heard.orphaned or self._server.ended() is not None:
                return False
            if time.monotonic() >= beat:
                self._line.send("beat", loading=True)
                beat += BEAT
        self._line.send("ready", pid=self._server.pid, server=str(self._server.found))
        return True

    def until_stop(self) -> None:
        """Wait until chicoryd asks for the end, or the server ends by itself."""
        while self._server.ended() is None:
            heard = self._line.wait(BEAT)
            if heard.stop:
                return
            if heard.orphaned:
                self._until_alone()
                return
            # A beat says that the server answers, so that chicoryd can tell a hung one from a quiet one.
            asked = time.monotonic()
            if self._server.answers():
                self._line.send("beat", lag=time.monotonic() - asked, rss=self._server.resident())

    def _until_alone(self) -> None:
        """chicoryd has gone: serve until the workers have finished too, or a new chicoryd wants the directory."""
        self._lock.note(shim=os.getpid(), server=self._server.pid, orphaned=True)
        end = time.monotonic() + ORPHANED
        while self._server.ended() is None and time.monotonic() < end and self._server.clients() > 0:
            if self._line.wait(0.25).stop:
                return

    def end(self) -> int:
        """End the server and say how it went."""
        status = self._server.ended()
        if status is None:
            status = self._server.stop(STOP_DEADLINE)
            if status == 0:
                self._line.send("bye", report={})
                return OK
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        # Should nobody read it, chicoryd must still hear that the server has gone.
        say(
            f"chicory server: {self._server.found} {how}; its log {self._server.log} ends:\n{self._server.last_words()}"
        )
        return INTERNAL


if __name__ == "__main__":
    sys.exit(main())
