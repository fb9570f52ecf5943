"""What is wrong with a value, and where in it: the errors of all codecs, read.  Pure."""

import re
from collections.abc import Iterator
from typing import Any, cast

from chicory.validation.codec import Refused, Within

_LONGEST = 200
# How msgspec ends a message about a part of a value.
_PLACE = re.compile(r" - at `(?:key in )?\$(.*?)`$")

Problem = tuple[str, str]


def problems(error: Exception, path: str) -> Iterator[Problem]:
    """Each mistake that *error* tells of the value at *path*: its own path, and words to follow it."""
    if isinstance(error, Refused):
        yield path, str(error)
    elif isinstance(error, Within):
        for step, inner in error.parts:
            yield from problems(inner, path + step)
    elif isinstance(error, ExceptionGroup):
        # Of cattrs, which notes the field in the error.
        for inner in cast("ExceptionGroup[Exception]", error).exceptions:
            yield from _in_field(inner, path)
    else:
        yield from _foreign(error, path)


def _in_field(error: Exception, path: str) -> Iterator[Problem]:
    extra = getattr(error, "extra_fields", None)
    if extra is not None:
        yield from ((f"{path}.{field}", "is unknown: there is no such field") for field in sorted(extra))
        return
    field = next((note.name for note in getattr(error, "__notes__", ()) if hasattr(note, "name")), None)
    if field is None:
        yield from problems(error, path)
    elif isinstance(error, KeyError) and error.args == (field,):
        yield f"{path}.{field}", "is missing"
    else:
        yield from problems(error, f"{path}.{field}")


def _foreign(error: Exception, path: str) -> Iterator[Problem]:
    """Of a model that judges itself, or of what a class does when an object of it is made."""
    name, text = type(error).__name__, _text(error)
    listed = _listed(error) if name == "ValidationError" else []
    place = _PLACE.search(text) if name == "ValidationError" else None
    if listed:
        yield from ((path + step, f"was refused: {why}") for step, why in listed)
    elif place is not None:
        yield path + place[1], f"was refused: {text[: place.start()]}"
    else:
        yield path, f"was refused: {name}: {text}" if text else f"was refused: {name}"


def _listed(error: Exception) -> list[Problem]:
    """What pydantic lists; nothing where another library's error has the same name."""
    try:
        found = cast("Any", error).errors()
        return [("".join(map(_step, one["loc"])), str(one["msg"])) for one in found]
    except Exception:
        return []


def _step(step: Any) -> str:
    return f"[{step}]" if isinstance(step, int) else f".{step}"


def _text(error: Exception) -> str:
    try:
        text = " ".join(str(error).split())
    except Exception as second:
        return f"<its text cannot be made: {type(second).__name__}>"
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
