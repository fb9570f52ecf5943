"""The few settings chicoryd needs itself, read without chicory.

Whether keys are known and values in range is found out by the check child, which runs first and has all the rules.
"""

import contextlib
import os
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import attrs

from chicoryd.plan import Plan

SLACK = 5.0  # seconds beyond a worker's own times before it is killed

T = TypeVar("T")
D = TypeVar("D")


class SettingsError(Exception):
    """The settings cannot be used; the message says what to mend."""


@attrs.frozen(kw_only=True)
class Settings:
    """What `chicoryd start` works by; all times are seconds.

    config: the configuration file, absolute; the children read it for themselves.
    state_dir: where the lock, the pid file and the control socket are.
    grace: for running tasks when the daemon stops; `margin` comes on top, to cancel them and to give them back.
    shutdown_timeout: for a worker to leave; after that it is killed.
    boot_timeout: without a word, after which a child that starts is killed.
    hang_timeout: without a beat, after which a worker or the scheduler is aborted, and then killed.
    parallel: how many workers may boot at once.
    forks: whether workers are forked from a template.
    max_tasks, max_age, memory_soft, jitter: when a worker makes way for a fresh one.
    embedded: whether the broker is the daemon's own server, which keeps its data in `broker_dir`.
    require_broker: whether a broker that cannot be reached at start ends the daemon.
    log_format: "console" or "json"; log_file: None is standard error.
    """

    config: Path
    state_dir: Path
    workers: int
    grace: float
    margin: float
    shutdown_timeout: float
    boot_timeout: float
    hang_timeout: float
    parallel: int
    forks: bool
    max_tasks: int | None
    max_age: float | None
    memory_soft: int | None
    jitter: float
    embedded: bool
    broker_dir: Path
    require_broker: bool
    log_format: str
    log_file: Path | None

    def plan(self, identity: str, watchdog: float | None, source: Path) -> Plan:
        """What these settings, which stand in *source*, make of the fleet of the daemon called *identity*."""
        fixed = [("supervisor.state_dir", str(self.state_dir)), ("broker.type = embedded", str(self.embedded))]
        fixed += [("log.format", self.log_format), ("log.file", str(self.log_file))]
        if self.embedded:
            fixed.append(("broker.state_dir", str(self.broker_dir)))
        return Plan(
            identity=identity,
            settings=str(source),
            fixed=tuple(fixed),
            watchdog=watchdog,
            **attrs.asdict(self, filter=lambda field, _: field.name in _PLANNED),
        )


_PLANNED = {field.name for field in attrs.fields(Plan)}


def load(config: Path, environ: Mapping[str, str], copy: Path | None = None) -> Settings:
    """The settings in *config*, where *environ* (`CHICORY_SUPERVISOR_WORKERS`, ...) does not say otherwise.

    copy: of that file, to be read instead.
    """
    config = config.absolute()
    read = _Reader(config, _parse(config, copy or config), environ)
    state_dir = read("broker", "state_dir", ".chicory", str)
    heartbeat = read("worker", "heartbeat_interval", 5.0, float)
    grace = read("worker", "shutdown_timeout", 30.0, float)
    margin = read("worker", "cancel_grace", 5.0, float) + SLACK
    shutdown_timeout = read("supervisor", "shutdown_timeout", grace + margin, float)
    return Settings(
        config=config,
        state_dir=_state_dir(read),
        workers=read("supervisor", "workers", 2, int),
        grace=min(grace, max(shutdown_timeout - margin, 0.0)),
        margin=margin,
        shutdown_timeout=shutdown_timeout,
        boot_timeout=read("supervisor", "boot_timeout", 60.0, float),
        # A worker that beats but seldom is not taken for a hung one.
        hang_timeout=max(read("supervisor", "hang_timeout", 60.0, float), 3 * heartbeat),
        parallel=os.cpu_count() or 1,
        forks=sys.platform == "linux" and read("supervisor", "start_method", "template", str).lower() == "template",
        max_tasks=read("supervisor", "max_tasks", None, int),
        max_age=read("supervisor", "max_age", None, float),
        memory_soft=read("supervisor", "memory_soft", None, _size),
        jitter=read("supervisor", "jitter", 0.1, float),
        broker_dir=config.parent / Path(state_dir).expanduser(),
        embedded=read("broker", "type", "embedded", str).lower() == "embedded",
        require_broker=read("worker", "require_broker", False, _switch),
        log_format=read("log", "format", "console", str).lower(),
        log_file=read("log", "file", None, lambda path: config.parent / Path(path).expanduser()),
    )


def locate(config: Path, environ: Mapping[str, str]) -> tuple[Path, SettingsError | None]:
    """The state directory of the daemon of *config*, and what is wrong with the file.

    Somebody who breaks the file of a daemon that runs must still be able to ask it how it is, and to stop it: of a file
    that is not TOML, the lines count that are.
    """
    try:
        return load(config, environ).state_dir, None
    except SettingsError as error:
        config = config.absolute()
        return _state_dir(_Reader(config, _salvage(config), environ)), error


def _state_dir(read: "_Reader") -> Path:
    found = read("supervisor", "state_dir", read("broker", "state_dir", ".chicory", str), str)
    return read.config.parent / Path(found).expanduser()


def _salvage(config: Path) -> Mapping[str, Any]:
    tables: dict[str, dict[str, Any]] = {}
    table: dict[str, Any] = {}
    with contextlib.suppress(OSError):
        for line in config.read_text(encoding="utf-8", errors="replace").splitlines():
            if header := re.match(r"\s*\[+\s*([\w.-]*)", line):
                table = tables.setdefault(header[1], {})
            else:
                with contextlib.suppress(ValueError):
                    table |= tomllib.loads(line)
    return tables


def _parse(config: Path, source: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read {config}: {error.strerror}") from error
    except ValueError as error:  # not TOML, or not UTF-8
        raise SettingsError(f"{config}: {error}") from error


@attrs.frozen
class _Reader:
    """Values by table and key, from the environment first and then the file."""

    config: Path
    tables: Mapping[str, Any]
    environ: Mapping[str, str]

    def __call__(self, table: str, key: str, default: D, convert: Callable[[Any], T]) -> T | D:
        where = f"CHICORY_{table}_{key}".upper()
        value = self.environ.get(where)
        if value == "":
            return default  # an empty variable takes the file's value away
        if value is None:
            where = f"{self.config}: {table}.{key}"
            found = self.tables.get(table, {})
            if not isinstance(found, dict):
                raise SettingsError(f"{self.config}: {table} must be a table, [{table}]")
            value = cast("dict[str, Any]", found).get(key)
        if value is None:
            return default
        try:
            return convert(value)
        except (TypeError, ValueError) as error:
            raise SettingsError(f"{where} = {value!r}: {error}") from error


def _size(value: object) -> int:
    """Bytes: 536870912, or "512MiB"."""
    found = re.fullmatch(r"(\d+)\s*([KMGT]iB)?", str(value).strip())
    if found is None:
        raise ValueError("write bytes, or a size such as 512MiB")
    number, unit = found.groups()
    return int(number) * 1024 ** ("", "KiB", "MiB", "GiB", "TiB").index(unit or "")


def _switch(value: object) -> bool:
    return value if isinstance(value, bool) else str(value).strip().lower() in ("1", "true", "yes", "on")
