"""From the layers to one checked tree of settings: defaults < file < environment < code < flags, key by key."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import attrs

from chicory.config.options import options
from chicory.config.section import DEFAULT, Section, dotted, with_origins
from chicory.config.settings import ChicoryConfig
from chicory.errors import ConfigError

FILE_VARIABLE = "CHICORY_CONFIG"
COPY_VARIABLE = "CHICORYD_SETTINGS"
STATE_DIR = ".chicory"

S = TypeVar("S", bound=Section)


@attrs.frozen
class Loaded:
    """What loading came to.  *config* is None when there are problems, each of them one line."""

    config: ChicoryConfig | None
    origins: dict[str, str]
    problems: tuple[str, ...]


def load_config(
    path: Path | str | None = None,
    *,
    code: ChicoryConfig | None = None,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> ChicoryConfig:
    """The settings in force; ConfigError, on one line, when something is wrong with them.

    path: the TOML file; None is the one that CHICORY_CONFIG names, or none.
    code: what the program says; only what it gave explicitly counts.
    flags: by dotted name, text or typed; None stands for a flag that was not given.
    environ: the environment; None is the process's own.

    What comes back may be given as *code* again: it counts as said what any layer has said, and origins are kept.
    """
    return load_with_origins(path, code=code, flags=flags, environ=environ)[0]


def load_with_origins(
    path: Path | str | None = None,
    *,
    code: ChicoryConfig | None = None,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[ChicoryConfig, dict[str, str]]:
    """The same, and for each dotted name `default`, `file PATH:LINE`, `env NAME`, `code` or `flag`."""
    loaded = examine(path, code=code, flags=flags, environ=environ)
    if loaded.config is None:
        first, *others = loaded.problems
        more = f" (and {len(others)} more: chicory config check lists them)" if others else ""
        raise ConfigError(first + more)
    return loaded.config, loaded.origins


def examine(
    path: Path | str | None = None,
    *,
    code: ChicoryConfig | None = None,
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """The same without an exception: everything that is wrong at once."""
    # These bring typed-settings, which whoever only makes settings in code does without.
    from chicory.config import layers
    from chicory.config.environment_layer import EnvironmentLoader
    from chicory.config.file_layer import FileLoader

    environ = os.environ if environ is None else environ
    file = path or environ.get(FILE_VARIABLE) or None
    problems: list[str] = []
    merged = layers.merge(
        [
            *([FileLoader(Path(file), problems, _copy(file, environ))] if file else []),
            EnvironmentLoader(environ, problems),
            *([layers.CodeLoader(code)] if code else []),
            *([layers.FlagLoader(flags, problems)] if flags else []),
        ]
    )
    if problems:
        return Loaded(None, {}, tuple(problems))
    values = {key: given.value for key, given in merged.items()}
    said = {key: given.origin for key, given in merged.items()}
    place(values, said, Path(file) if file else None)
    try:
        config = build(ChicoryConfig, values, said)
    except ConfigError as error:
        return Loaded(None, {}, (str(error),))
    return Loaded(config, {key: said.get(key, DEFAULT) for key in options()}, ())


def _copy(file: Path | str, environ: Mapping[str, str]) -> Path | None:
    """Where chicoryd keeps what stood in *file* when it read it: somebody may be writing it anew."""
    copy = environ.get(COPY_VARIABLE)
    mine = copy and str(file) == environ.get(FILE_VARIABLE) and os.path.exists(copy)
    return Path(copy) if copy and mine else None


def place(values: dict[str, object], said: dict[str, str], file: Path | None) -> None:
    """Make the paths in *values* absolute, and fill in directories that nobody named: the daemon's is the broker's."""
    beside = file.parent if file else Path()
    default = os.path.abspath(beside / STATE_DIR)
    for key, option in options().items():
        value = values.get(key)
        if option.rule.path == "file" and isinstance(value, str):
            values[key] = os.path.abspath(beside / value)
        if option.rule.path != "directory":
            continue
        if not isinstance(value, str):
            value = default
            if file is not None:
                # Counts as said, for whoever loads again on top of this: the file's directory is not known there.
                said[key] = DEFAULT
        values[key] = default = os.path.abspath(value)


def build(owner: type[S], values: Mapping[str, object], said: Mapping[str, str]) -> S:
    """The section *owner* with everything in it."""
    arguments: dict[str, object] = {}
    origins: dict[str, str] = {}
    for field in owner.__attrs_attrs__:
        key = dotted(owner.section, field.name)
        if Section in field.metadata:
            arguments[field.name] = build(field.metadata[Section], values, said)
        elif key in values:
            arguments[field.name] = values[key]
            if key in said:
                origins[field.name] = said[key]
    return with_origins(owner(**arguments), origins)
