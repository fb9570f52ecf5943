"""On which line of a TOML file each key stands, which tomllib does not tell."""

import tomllib
from collections.abc import Iterator, Mapping

from chicory.config.section import dotted


def key_lines(text: str) -> dict[str, int]:
    """The 1-based line of every dotted key and table of *text*, which must be valid TOML.

    Statements are found by giving tomllib one line more until it is content, so that no second idea of TOML's syntax is
    needed: a string or an array over several lines does not parse before it is whole.
    """
    found: dict[str, int] = {}
    table = ""
    for number, statement in statements(text):
        tree: dict[str, object] = tomllib.loads(statement)
        header = statement.lstrip().startswith("[")
        for key in keys(tree, "" if header else table):
            found.setdefault(key, number)
            table = key if header else table
    return found


def statements(text: str) -> Iterator[tuple[int, str]]:
    """Every header and every `key = value` of *text*, with the line it begins on."""
    pending, start = "", 1
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        if not pending:
            start = number
        pending += line
        try:
            tomllib.loads(pending)
        except tomllib.TOMLDecodeError:
            continue
        yield start, pending
        pending = ""


def keys(tree: Mapping[str, object], prefix: str) -> Iterator[str]:
    """The dotted names in *tree*, the outer ones first."""
    for name, value in tree.items():
        key = dotted(prefix, name)
        yield key
        if isinstance(value, list) and value and isinstance(value[0], dict):  # an array of tables, [[name]]
            value = value[0]  # noqa: PLW2901  # pyright: ignore[reportUnknownVariableType]
        if isinstance(value, dict):
            yield from keys(value, key)  # pyright: ignore[reportUnknownArgumentType]: whatever tomllib made
