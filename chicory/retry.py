"""When a failed task is tried again, and after how long.  Pure."""

import re
import sys
from collections.abc import Callable, Collection
from enum import StrEnum
from typing import Any, cast

import attrs

from chicory.errors import UsageError
from chicory.groups import members, walk
from chicory.naming import class_dotted, class_name, dotted

# An exception's class, or its name.
Kind = type[BaseException] | str

_NAME = re.compile(r"[^\W\d][\w.<>]*")
_bases: Callable[[type], tuple[type, ...]] = vars(type)["__mro__"].__get__


class Backoff(StrEnum):
    """How the wait before a retry grows: not at all, by `retry_delay` each time, or twofold."""

    FIXED = "fixed"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"


def _at_least_0(_: object, attribute: "attrs.Attribute[Any]", value: float) -> None:
    if type(value) not in (int, float) or not 0 <= value <= sys.float_info.max:
        _refuse(attribute, "a number of seconds from 0", value)


def _positive(_: object, attribute: "attrs.Attribute[Any]", value: float | None) -> None:
    if value is not None and (type(value) not in (int, float) or not 0 < value <= sys.float_info.max):
        _refuse(attribute, "a positive number of seconds", value)


def _share(_: object, attribute: "attrs.Attribute[Any]", value: float) -> None:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        _refuse(attribute, "a number from 0 to 1", value)


def _count(_: object, attribute: "attrs.Attribute[Any]", value: int) -> None:
    if type(value) is not int or value < 0:
        _refuse(attribute, "a whole number from 0", value)


def _kinds(_: object, attribute: "attrs.Attribute[Any]", value: tuple[Any, ...] | None) -> None:
    for kind in value or ():
        if not isinstance(kind, str) or not _NAME.fullmatch(kind):
            _refuse(attribute, "exceptions, or names of them like 'TimeoutError' or 'httpx.ReadTimeout'", kind)
    if attribute.name == "retry_on" and value == ():
        raise UsageError("retry_on names nothing; leave it out to retry after any exception, or set max_retries=0")


def _refuse(attribute: "attrs.Attribute[Any]", wanted: str, value: object) -> None:
    raise UsageError(f"{attribute.name} must be {wanted}, not {value!r:.80}")


def _backoff(value: Backoff | str) -> Backoff:
    try:
        return Backoff(value)
    except ValueError:
        members = ", ".join(f"Backoff.{one.name}" for one in Backoff)
        raise UsageError(f"backoff must be one of {members}, not {value!r:.80}") from None


def _number(value: float) -> float:
    return float(value) if type(value) is bool else value


def _names(value: Kind | Collection[Kind] | None) -> tuple[str, ...] | None:
    return None if value is None else _listed(value)


def _listed(value: Kind | Collection[Kind]) -> tuple[str, ...]:
    kinds = value if isinstance(value, list | tuple | set | frozenset) else (value,)
    # What is no exception is told of by the validator.
    return tuple(cast("str", dotted(kind) if _is_exception(kind) else kind) for kind in kinds)


def _is_exception(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often, how soon and after what a task that failed is tried again.

    max_retries: tries after the first; 0 never retries.
    retry_delay: seconds before the first retry; backoff: how they grow; max_delay: what they grow to.
    jitter: share of the wait, 0 to 1, that chance may take away; True is 1.
    retry_on: exceptions that are worth a retry; None is all.
    ignore_on: exceptions that are not, whatever retry_on says.
    time_budget: seconds from the begin of the first try within which a retry must begin.

    Exceptions are classes or names, one or several.  A name is the class's own, as "ReadTimeout", or its full one, as
    "httpx.ReadTimeout"; subclasses count.  Names are all that is kept, since a policy may travel with a message.
    """

    max_retries: int = attrs.field(default=3, validator=_count)
    retry_delay: float = attrs.field(default=1.0, validator=_at_least_0)
    backoff: Backoff = attrs.field(default=Backoff.EXPONENTIAL, converter=_backoff)
    max_delay: float = attrs.field(default=3600.0, validator=_at_least_0)
    jitter: float = attrs.field(default=0.5, converter=_number, validator=_share)
    retry_on: tuple[str, ...] | None = attrs.field(default=None, converter=_names, validator=_kinds)
    ignore_on: tuple[str, ...] = attrs.field(default=(), converter=_listed, validator=_kinds)
    time_budget: float | None = attrs.field(default=None, validator=_positive)

    def __attrs_post_init__(self) -> None:
        if self.retry_delay > self.max_delay:
            raise UsageError(f"retry_delay={self.retry_delay:g} exceeds max_delay={self.max_delay:g}; raise max_delay")


def backoff(policy: RetryPolicy, attempt: int, draw: float) -> float:
    """Seconds to wait after attempt number *attempt* (1-based) has failed.

    *draw* is uniform in [0, 1); it is an argument so that tests choose it.  The result lies in
    [0, policy.max_delay]: jitter only ever shortens the wait, so the cap stays true.
    Source: M. Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.
    """
    try:
        grown = policy.retry_delay * _GROWTH[policy.backoff](attempt)
    except OverflowError:
        grown = policy.max_delay
    return min(grown, policy.max_delay) * (1 - policy.jitter * draw)


_GROWTH: dict[Backoff, Callable[[int], float]] = {
    Backoff.FIXED: lambda _: 1.0,
    Backoff.LINEAR: float,
    Backoff.EXPONENTIAL: lambda attempt: 2.0 ** (attempt - 1),
}


def retryable(policy: RetryPolicy, error: BaseException) -> bool:
    """Whether *error* is worth a retry.

    A group is when it is named itself, or else when all in it are; and it is not when it, or any in it, is ignored.
    """
    if policy.ignore_on and any(map(_named(policy.ignore_on), walk(error))):
        return False
    # A group that is named answers for all in it; of what is not, only groups with nothing else in them are wanted.
    return policy.retry_on is None or all(members(one) for one in walk(error, but=_named(policy.retry_on)))


def _named(kinds: Collection[str]) -> Callable[[BaseException], bool]:
    """Whether a class of an exception, or one of its bases, is among *kinds*."""
    # There may be thousands of exceptions in a group, and are few classes.
    known: dict[int, bool] = {}

    def named(error: BaseException) -> bool:
        kind = type(error)
        if id(kind) not in known:
            known[id(kind)] = any(class_name(base) in kinds or class_dotted(base) in kinds for base in _bases(kind))
        return known[id(kind)]

    return named
