"""How a section of the settings is declared, and how it remembers what was said and by whom.

A value given in code must win over the environment even when it equals the default, and one that was not given must
not.  Values alone cannot tell the two apart, so each section keeps the origin of every setting that somebody gave.
"""

import re
from collections.abc import Callable, Mapping
from typing import ClassVar, Self, TypeVar, dataclass_transform

import attrs

from chicory.config.rules import Rule
from chicory.errors import ConfigError, did_you_mean
from chicory.secret import MASK

CODE = "code"
DEFAULT = "default"

# A URL in the wrong setting is a common mistake, and the message about it must not show its password.
PASSWORD_IN_URL = re.compile(r"//[^/\s]*@")

In = TypeVar("In")
T = TypeVar("T")
C = TypeVar("C", bound="type[Section]")
S = TypeVar("S", bound="Section")


class Section:
    """The base of all settings classes: frozen, keyword only, every value checked."""

    __slots__ = ("_origins",)

    section: ClassVar[str]
    """Dotted name of the table in the file; empty for the root."""

    __attrs_attrs__: ClassVar["tuple[attrs.Attribute[object], ...]"]
    _origins: Mapping[str, str]

    # Here and not in __init__, because only here the defaults have not been filled in yet.
    def __new__(cls, **given: object) -> Self:
        known = [field.name for field in cls.__attrs_attrs__]
        for name in given:
            if name not in known:
                raise ConfigError(f"{cls.__name__} has no setting {name!r}{did_you_mean(name, known)}")
        self = super().__new__(cls)
        object.__setattr__(self, "_origins", dict.fromkeys(given, CODE))
        return self


def setting(*, default: T, converter: Callable[[In], T]) -> T:
    """A setting; *converter* is its rule, named so because static checkers take what may be written from it."""
    if not isinstance(converter, Rule):
        raise TypeError(f"a setting needs a Rule, not {converter!r}")
    rule: Rule[In, T] = converter  # pyright: ignore[reportUnknownVariableType]: isinstance knows no type arguments

    def checked(value: object, owner: attrs.AttrsInstance, field: "attrs.Attribute[object]") -> object:
        try:
            return rule.check(value)
        except ValueError:
            pass
        raise ConfigError(refusal(full_name(owner, field.name), value, rule))  # out here, so that no secret is chained

    return attrs.field(
        default=default,
        converter=attrs.Converter(checked, takes_self=True, takes_field=True),
        metadata={Rule: rule},
    )


def subsection(*, factory: Callable[[], T]) -> T:
    """A section within a section."""

    def checked(value: object, owner: attrs.AttrsInstance, field: "attrs.Attribute[object]") -> object:
        if isinstance(factory, type) and isinstance(value, factory):
            return value
        key = full_name(owner, field.name)
        raise ConfigError(f"{key}: must be a {getattr(factory, '__name__', factory)}, not {type(value).__name__}")

    return attrs.field(
        factory=factory,
        converter=attrs.Converter(checked, takes_self=True, takes_field=True),
        metadata={Section: factory},
    )


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(setting, subsection))
def settings(cls: C) -> C:
    """Makes a settings class of a declaration."""
    return attrs.frozen(kw_only=True)(cls)


def evolve(section: S, **changes: object) -> S:
    """A copy of *section* with *changes*, which count as given in code; everything else keeps its origin."""
    made = attrs.evolve(section, **changes)
    return with_origins(made, {**origins_of(section), **dict.fromkeys(changes, CODE)})


def origins_of(section: Section) -> Mapping[str, str]:
    """Who gave each setting of *section*; those left at their default are missing."""
    return section._origins  # pyright: ignore[reportPrivateUsage]


def with_origins(section: S, origins: Mapping[str, str]) -> S:
    """*section*, just made, as if its settings came from *origins*."""
    object.__setattr__(section, "_origins", dict(origins))
    return section


def dotted(section: str, name: str) -> str:
    """The full name of a setting."""
    return f"{section}.{name}" if section else name


def full_name(owner: attrs.AttrsInstance, name: str) -> str:
    """The same, from inside an attrs converter."""
    return dotted(owner.section, name) if isinstance(owner, Section) else name


def refusal(key: str, value: object, rule: Rule[In, T]) -> str:
    """One line: which setting, what it was given, what it may be."""
    shown = repr(MASK) if rule.secret else shorten(PASSWORD_IN_URL.sub("//***@", repr(value)))
    return f"{key} = {shown}: must be {rule.wants}"


def shorten(text: str, limit: int = 80) -> str:
    """*text*, or its beginning."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
