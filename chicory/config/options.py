"""Every setting by its dotted name: the rule it obeys and the variable that sets it."""

import functools
from collections.abc import Iterator, Mapping

import attrs

from chicory.config.rules import Rule
from chicory.config.section import Section, dotted
from chicory.config.settings import ChicoryConfig
from chicory.errors import did_you_mean

PREFIX = "CHICORY_"


@attrs.frozen
class Option:
    """One setting."""

    key: str
    owner: type[Section]
    name: str
    rule: Rule[object, object]
    default: object

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return variable(self.key)

    @property
    def file_key(self) -> str | None:
        """For a secret: the key that names a file which holds it."""
        return f"{self.key}_file" if self.rule.secret else None


@functools.cache
def options() -> Mapping[str, Option]:
    """All settings, in the order they are declared."""
    return {option.key: option for option in walk(ChicoryConfig)}


@functools.cache
def sections() -> tuple[str, ...]:
    """The dotted names of all tables, in the order they are declared."""
    return tuple(dict.fromkeys(option.owner.section for option in options().values() if option.owner.section))


def walk(owner: type[Section]) -> Iterator[Option]:
    """The settings of *owner* and of the sections in it."""
    for field in owner.__attrs_attrs__:
        if Section in field.metadata:
            yield from walk(field.metadata[Section])
        else:
            key = dotted(owner.section, field.name)
            yield Option(key, owner, field.name, field.metadata[Rule], field.default)


def variable(key: str) -> str:
    """The environment variable of a dotted name."""
    return PREFIX + key.upper().replace(".", "_")


def suggestion(key: str) -> str:
    """The end of a sentence about the unknown name *key*: `; did you mean 'x'?`, or a full stop.

    A key that is right but in the wrong table is found by its last part.
    """
    known = [*options(), *sections()]
    last = key.rpartition(".")[2]
    here = [name for name in known if name.rpartition(".")[2] == last]
    if here:
        nearest = did_you_mean(key, here)
        return nearest if nearest != "." else did_you_mean(here[0], here)
    near = did_you_mean(key, known)
    return near if near != "." else did_you_mean(last, known)
