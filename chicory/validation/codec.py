"""A codec: how the values of one type hint travel as JSON, and how they arrive.  Pure.

Whoever sends dumps a value, loads what came of it to see that it will arrive, and sends the dump; whoever receives
loads.  Dumping refuses nothing: what is not of its type travels to the loading as a Stray, and there every mistake is
told with its place.
"""

from collections.abc import Callable, Iterable
from typing import Any, final

import attrs

Dump = Callable[[Any], Any]
# Called with what has arrived, and by cattrs with the type as well, which every loader knows already.
Load = Callable[..., Any]

NOTHING: frozenset[type] = frozenset()


@final
@attrs.frozen(eq=False, kw_only=True)
class Codec:
    """How the values of the type hint *name* travel.

    exact: values of exactly these types travel and arrive as they are, so nobody has to look closer.
    takes: types whose instances belong to this hint, if to any; a union chooses by those that one member alone takes.
    kinds: types that a dump may have on the wire; None is any.
    bare: plain JSON, so in a union it is the others that travel under a name.
    """

    name: str
    dump: Dump
    load: Load
    exact: frozenset[type] = NOTHING
    takes: frozenset[type] = NOTHING
    kinds: frozenset[type] | None = None
    bare: bool = False


def unchanged(value: Any, _: Any = None) -> Any:
    """*value*: for what travels as it is."""
    return value


# Any, object, no hint, or one that cannot be read: what travels is left to the wire.
ANY = Codec(name="Any", dump=unchanged, load=unchanged)


@final
@attrs.frozen(eq=False)
class Stray:
    """A value that is not of its type."""

    value: Any


class Refused(Exception):
    """A value that is not of its type.  Of the value itself nothing is told but its type: it may be a secret."""

    def __init__(self, wanted: str, value: Any) -> None:
        super().__init__(f"must be {wanted}, not {_type_of(value)}")


class Within(Exception):
    """What is wrong inside a value: a step of the path and an error for each mistake."""

    def __init__(self, parts: Iterable[tuple[str, Exception]]) -> None:
        self.parts = tuple(parts)
        super().__init__(self.parts)


class UnsupportedHint(Exception):
    """A type hint that values cannot be held to."""


def _type_of(value: Any) -> str:
    if isinstance(value, Stray):
        value = value.value
    return "None" if value is None else type(value).__name__


def load_each(load: Load, raws: Iterable[Any], step: Callable[[int], str]) -> list[Any]:
    """All of *raws* loaded, each once; raises Within with every mistake, *step* naming the place of an index."""
    loaded: list[Any] = []
    rest = iter(raws)
    try:
        for raw in rest:
            loaded.append(load(raw))  # noqa: PERF401
        return loaded
    except Exception as error:
        wrong = [(len(loaded), error)]
    for index, raw in enumerate(rest, len(loaded) + 1):
        try:
            load(raw)
        except Exception as error:
            wrong.append((index, error))
    raise Within((step(index), error) for index, error in wrong)
