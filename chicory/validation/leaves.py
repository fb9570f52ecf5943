"""Codecs of single values: numbers, texts, instants, paths, enums and literals."""

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from types import NoneType
from typing import Any, cast
from uuid import UUID

import msgspec

from chicory.validation.codec import Codec, Refused, Stray

# What a subclass of these holds as the plain thing; an IntEnum travels as its number.
_NARROW: dict[type, Callable[[Any], Any]] = {
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    bytes: bytes.__bytes__,
}


def _leaf(kind: type, name: str, *, bare: bool) -> Codec:
    """Of a type that the wire knows itself."""
    narrow = _NARROW.get(kind)

    def dump(value: Any) -> Any:
        # True is an int to Python, and to nobody who asks for one.
        if narrow is None or type(value) is kind or type(value) is bool or not isinstance(value, kind):
            return value
        return narrow(value)

    def load(raw: Any, _: Any = None) -> Any:
        if type(raw) is kind or (narrow is None and isinstance(raw, kind)):
            return raw
        raise Refused(name, raw)

    def load_float(raw: Any, _: Any = None) -> Any:
        if type(raw) is float:
            return raw
        # As in Python's own typing, an int will do where a float is asked for.
        if type(raw) is int:
            return float(raw)
        raise Refused(name, raw)

    only = frozenset({kind})
    chosen = load_float if kind is float else load
    return Codec(name=name, dump=dump, load=chosen, exact=only, takes=only, kinds=only, bare=bare)


LEAVES: dict[Any, Codec] = {
    **{kind: _leaf(kind, kind.__name__, bare=True) for kind in (bool, int, float, str)},
    **{kind: _leaf(kind, kind.__name__, bare=False) for kind in (bytes, datetime, UUID, Decimal)},
    NoneType: _leaf(NoneType, "None", bare=True),
}


def _text(kind: type, name: str, write: Callable[[Any], str], read: Callable[[str], Any], *, only: bool) -> Codec:
    """Of a type that travels as text.  *only*: not its subclasses; a datetime is a date to Python, and loses by it."""

    def dump(value: Any) -> Any:
        fits = type(value) is kind if only else isinstance(value, kind)
        return write(value) if fits else Stray(value)

    def load(raw: Any, _: Any = None) -> Any:
        if type(raw) is not str:
            raise Refused(name, raw)
        try:
            return read(raw)
        except (ValueError, msgspec.MsgspecError):
            raise Refused(f"a {name} as text", raw) from None

    return Codec(name=name, dump=dump, load=load, takes=frozenset({kind}), kinds=frozenset({str}))


def _duration(text: str) -> timedelta:
    return msgspec.convert(text, timedelta)


# ISO 8601, all of them: a duration is text like P1DT2.5S, exact to the microsecond.
TEXTS: dict[Any, Codec] = {
    date: _text(date, "date", date.isoformat, date.fromisoformat, only=True),
    time: _text(time, "time", time.isoformat, time.fromisoformat, only=True),
    timedelta: _text(timedelta, "timedelta", msgspec.to_builtins, _duration, only=True),
}


def path(kind: type[PurePath]) -> Codec:
    """Of paths, which travel as text."""
    return _text(kind, kind.__name__, str, kind, only=False)


def enum(kind: type[Enum]) -> Codec:
    """Of the members of an enum, which travel as their values."""
    values = [member.value for member in kind]

    def dump(value: Any) -> Any:
        return value.value if isinstance(value, kind) else Stray(value)

    def load(raw: Any, _: Any = None) -> Any:
        value = tuple(cast("list[Any]", raw)) if type(raw) is list else raw
        try:
            member = kind(value)
        except (ValueError, TypeError, KeyError):
            raise Refused(_one_of(kind.__name__, values), raw) from None
        # 1.0 and True are found where 1 is meant.
        if type(member.value) is not type(value):
            raise Refused(_one_of(kind.__name__, values), raw)
        return member

    return Codec(name=kind.__name__, dump=dump, load=load, takes=frozenset({kind}), kinds=_kinds_of(values))


def literal(values: tuple[Any, ...]) -> Codec:
    """Of one of *values*; members of an enum among them travel as their values."""
    raws = [value.value if isinstance(value, Enum) else value for value in values]
    known: dict[tuple[type, Any], Any] = {(type(raw), raw): value for raw, value in zip(raws, values, strict=True)}
    given: dict[tuple[type, Any], Any] = {(type(value), value): raw for raw, value in zip(raws, values, strict=True)}

    def dump(value: Any) -> Any:
        try:
            return given[type(value), value]
        except (KeyError, TypeError):
            return Stray(value)

    def load(raw: Any, _: Any = None) -> Any:
        try:
            return known[type(raw), raw]
        except (KeyError, TypeError):
            raise Refused(_one_of("", raws), raw) from None

    return Codec(name=f"Literal{raws}", dump=dump, load=load, kinds=_kinds_of(raws))


def _kinds_of(values: list[Any]) -> frozenset[type]:
    return frozenset(list if type(value) is tuple else cast("type[object]", type(value)) for value in values)


def _one_of(name: str, values: list[Any]) -> str:
    shown = ", ".join(repr(value) for value in values[:10]) + (", ..." if len(values) > 10 else "")
    return f"{name} ({shown})" if name else f"one of {shown}"
