"""Show the settings in force and where each comes from, or check a file."""

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from chicory.config import ChicoryConfig

file_option = click.option(
    "-c",
    "--config",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    envvar="CHICORY_CONFIG",
    help="The TOML file. [env: CHICORY_CONFIG]",
)


@click.group()
def config() -> None:
    """Settings: defaults < file < environment < code < flags, key by key."""


@config.command()
@file_option
@click.option("--app", metavar="MODULE:APP", help="Import this app too, for what its code says.")
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object, by dotted name.")
def show(file: Path | None, app: str | None, origin: bool, as_json: bool) -> None:
    """Print every setting as it is in force.  Passwords are shown as asterisks."""
    from chicory.config import load_with_origins
    from chicory.config.options import options

    loaded, origins = load_with_origins(file, code=code_of(app) if app else None)
    values = {key: plain(value_of(loaded, key)) for key in options()}
    if as_json:
        told: object = {key: {"value": values[key], "origin": origins[key]} for key in values} if origin else values
        click.echo(json.dumps({"schema": 1, "settings": told}, indent=2))
        return
    lines = {key: f"{key} = {json.dumps(value)}" for key, value in values.items()}
    width = max(map(len, lines.values()))
    for key, line in lines.items():
        click.echo(f"{line:<{width}}  # {origins[key]}" if origin else line)


@config.command()
@file_option
def check(file: Path | None) -> None:
    """Validate FILE together with the environment: `ok`, or a line for each problem and exit code 78."""
    from chicory.config.loading import examine
    from chicory.exits import BAD_CONFIG

    problems = examine(file).problems
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        raise click.exceptions.Exit(BAD_CONFIG)
    click.echo("ok")


def code_of(app: str) -> "ChicoryConfig":
    """The settings of the app called `module:app`."""
    from chicory.loading import import_app

    return import_app(app).config


def value_of(settings: object, key: str) -> object:
    """The value at a dotted name."""
    for name in key.split("."):
        settings = getattr(settings, name)
    return settings


def plain(value: object) -> object:
    """*value* as JSON knows it; a secret's text is its mask."""
    from chicory.secret import SecretStr

    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, SecretStr) else value
