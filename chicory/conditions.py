"""On which conditions messages are sent: what a task says of all of its own, and what `options()` says of some."""

import sys
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, TypeGuard, TypeVar, cast, get_args

import attrs

from chicory.carried import CARRIED
from chicory.delay import MAX_DELAY, check_delay
from chicory.errors import DelayError, UsageError
from chicory.retry import RetryPolicy
from chicory.types import DeliveryMode, Flavor, ValidationMode
from chicory.unique import Unique
from chicory.wire import check_headers, check_id, check_queue

M = TypeVar("M", bound=StrEnum)


def _limit(_: object, attribute: "attrs.Attribute[float | None]", value: object) -> None:
    if value is not None and not (_is_number(value) and 0 < value <= sys.float_info.max):
        raise UsageError(f"{attribute.name} must be a positive number of seconds, not {value!r:.80}")


def check_flavor(flavor: str) -> Flavor:
    """*flavor*, when there is one called so; else UsageError."""
    if flavor not in get_args(Flavor):
        raise UsageError(f"flavor must be one of {', '.join(map(repr, get_args(Flavor)))}, not {flavor!r:.80}")
    return cast("Flavor", flavor)


def _policy(_: object, __: object, value: object) -> None:
    check_policy(value)


def _flag(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if value is not None and not isinstance(value, bool):
        raise UsageError(f"{attribute.name} must be True or False, not {value!r:.80}")


def _text_or_none(_: object, attribute: "attrs.Attribute[str | None]", value: object) -> None:
    if value is not None and not isinstance(value, str):
        raise UsageError(f"{attribute.name} must be a text, not {value!r:.80}")


def _expiry(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if isinstance(value, datetime):
        return
    _limit(_, attribute, value)
    if _is_number(value) and value > MAX_DELAY:
        raise UsageError(
            f"{attribute.name} must be a positive number of seconds up to {MAX_DELAY:.0f}, not {value!r:.80}"
        )


def _instant_or_none(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if value is not None and not isinstance(value, datetime):
        raise UsageError(f"{attribute.name} must be a datetime, not {value!r:.80}; seconds from now are a delay")


def _queue(_: object, __: object, value: object) -> None:
    if not isinstance(value, str):
        raise UsageError(f"queue must be a name, not {value!r:.80}")
    check_queue(value)


def _priority(_: object, __: object, value: object) -> None:
    if value is not None and not (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255):
        raise UsageError(f"priority must be a whole number from 0 to 255, higher first, not {value!r:.80}")


def _task_id(_: object, __: object, value: object) -> None:
    if not isinstance(value, str):
        raise UsageError(f"task_id must be a text, not {value!r:.80}")
    check_id(value)


def _headers(_: object, __: object, value: object) -> None:
    if not isinstance(value, Mapping):
        raise UsageError(f"headers must be a mapping of texts to texts, not {value!r:.80}")
    for key, text in cast("Mapping[object, object]", value).items():
        if not (isinstance(key, str) and isinstance(text, str)):
            raise UsageError(f"headers must be a mapping of texts to texts, and {key!r:.80}: {text!r:.80} is not")
        if key.startswith(CARRIED):
            raise UsageError(
                f"headers that begin with {CARRIED!r} hold carried context variables, and {key!r} is one; set the"
                " variable, or leave it out"
            )
    check_headers(cast("Mapping[str, str]", value))


def check_mode(value: object) -> DeliveryMode:
    """*value* as a delivery mode; else UsageError."""
    return _member(DeliveryMode, "delivery_mode", value)


def check_validation(value: object) -> ValidationMode:
    """*value* as a validation mode; else UsageError."""
    return _member(ValidationMode, "validation_mode", value)


def check_policy(value: object) -> RetryPolicy | None:
    """*value*, when it is a retry policy or None; else UsageError."""
    if value is not None and not isinstance(value, RetryPolicy):
        raise UsageError(f"retry_policy must be a RetryPolicy, not {value!r:.80}")
    return value


def _member(kind: type[M], name: str, value: object) -> M:
    try:
        return kind(value)
    except ValueError:
        known = [repr(member.value) for member in kind]
        raise UsageError(f"{name} must be {', '.join(known[:-1])} or {known[-1]}, not {value!r:.80}") from None


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _checked_delay(value: object) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if not _is_number(seconds):
        raise DelayError(f"a delay is a number of seconds or a timedelta, not {value!r:.80}")
    return check_delay(seconds)


def _unique(value: object) -> Unique | None:
    if value is None or value is False:
        return None
    if isinstance(value, Unique):
        return value
    if value is True:
        return Unique()
    if isinstance(value, str) or callable(value):
        return Unique(cast("str | Callable[..., str]", value))
    raise UsageError(f"unique must be True, a key, or Unique(key=..., window=...), not {value!r:.80}")


def _unique_or_not(value: object) -> Unique | Literal[False] | None:
    return False if value is False else _unique(value)


_optional = attrs.validators.optional


@attrs.frozen(kw_only=True)
class TaskSettings:
    """What `@app.task(...)` says about every message of a task; `options()` may say otherwise of one.

    queue: None is the worker's default queue, "default".
    retry_policy, delivery_mode, validation_mode: None is the app's.
    flavor: what an async function is written for; None is the app's.
    process: whether a sync function runs in a child process of the worker, which can be killed, and not in a thread.
    timeout: seconds one run may take.  expires: seconds after sending during which it is worth running.
    """

    queue: str = attrs.field(default="default", validator=_queue)
    retry_policy: RetryPolicy | None = attrs.field(default=None, validator=_policy)
    delivery_mode: DeliveryMode | None = attrs.field(default=None, converter=attrs.converters.optional(check_mode))
    validation_mode: ValidationMode | None = attrs.field(
        default=None, converter=attrs.converters.optional(check_validation)
    )
    flavor: Flavor | None = attrs.field(default=None, converter=attrs.converters.optional(check_flavor))
    process: bool = attrs.field(default=False, validator=_flag)
    timeout: float | None = attrs.field(default=None, validator=_limit)
    expires: float | None = attrs.field(default=None, validator=_expiry)
    priority: int | None = attrs.field(default=None, validator=_priority)
    ignore_result: bool = attrs.field(default=False, validator=_flag)
    unique: Unique | None = attrs.field(default=None, converter=_unique)


@attrs.frozen(kw_only=True)
class SendOptions:
    """What `options()` says about the messages of one bound task; None leaves it to the task.

    unique: False takes back what the task says.
    """

    queue: str | None = attrs.field(default=None, validator=_optional(_queue))
    delay: float | None = attrs.field(default=None, converter=attrs.converters.optional(_checked_delay))
    eta: datetime | None = attrs.field(default=None, validator=_instant_or_none)
    expires: datetime | float | None = attrs.field(default=None, validator=_expiry)
    priority: int | None = attrs.field(default=None, validator=_priority)
    timeout: float | None = attrs.field(default=None, validator=_limit)
    task_id: str | None = attrs.field(default=None, validator=_optional(_task_id))
    headers: Mapping[str, str] | None = attrs.field(default=None, validator=_optional(_headers))
    reply_to: str | None = attrs.field(default=None, validator=_text_or_none)
    ignore_result: bool | None = attrs.field(default=None, validator=_flag)
    delivery_mode: DeliveryMode | None = attrs.field(default=None, converter=attrs.converters.optional(check_mode))
    retry_policy: RetryPolicy | None = attrs.field(default=None, validator=_policy)
    unique: Unique | Literal[False] | None = attrs.field(default=None, converter=_unique_or_not)
