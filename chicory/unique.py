"""Unique: which calls of a task count as the same, so that one of them at a time is enough."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import attrs

from chicory.delay import MAX_DELAY
from chicory.errors import UsageError
from chicory.wire import check_unique, fingerprint

Arguments = tuple[Sequence[Any], Mapping[str, Any]]


def _key(_: object, __: object, key: object) -> None:
    if not (key is None or callable(key) or (isinstance(key, str) and key)):
        raise UsageError(f"key must be a text, or a function that makes one of a call's arguments, not {key!r}")


def _window(window: object) -> float:
    seconds = window.total_seconds() if isinstance(window, timedelta) else window
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= MAX_DELAY:
        raise UsageError(f"window must be a number of seconds or a timedelta, and not negative, not {window!r}")
    return float(seconds)


@attrs.frozen
class Unique:
    """Of a task's calls with the same key only one is sent at a time; who calls meanwhile is given that one.

    key: a text, or a function that makes one of the arguments of a call; None: the same arguments are the same call.
    window: seconds from sending in which no other is sent even when that one has succeeded; 0: until it is finished.
    """

    key: str | Callable[..., str] | None = attrs.field(default=None, validator=_key)
    window: float = attrs.field(default=0.0, converter=_window)

    def key_of(self, task: str, given: Arguments, outgoing: Arguments) -> str:
        """The key of a call with the arguments *given*, which travel as *outgoing*; no task has a key of another's."""
        key = self.key
        if key is None:
            return f"{task}:{fingerprint(*outgoing)}"
        if not isinstance(key, str):
            args, kwargs = given
            key = key(*args, **kwargs)
            if not isinstance(key, str) or not key:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise UsageError(f"{task}: the key that unique= makes of a call must be a text, not {key!r}")
        return check_unique(f"{task}:{key}")
