"""Bytes on the wire <-> values.  Pure and total: whatever the bytes are, `unpack` answers and never raises.

Bodies are JSON in a closed set of types: null, bool, int within 64 bits, finite float, str, list, dict with str keys,
and four tagged kinds, each an object with one key: {"$datetime": iso}, {"$uuid": hex}, {"$decimal": text},
{"$bytes": base64}.  A user's own one-key object whose key starts with "$" is wrapped as {"$object": ...}.
Nothing on the wire names code other than a registered task.
"""

import base64
import binascii
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from functools import lru_cache
from types import UnionType
from typing import Any, cast
from uuid import UUID

import msgspec
from msgspec.structs import replace

from chicory.delay import MAX_DELAY
from chicory.errors import PayloadError, UsageError
from chicory.types import ResultRecord, TaskMessage, Undecodable

MAX_BODY = 256 * 1024
MAX_DEPTH = 32
MAX_NODES = 10_000
MAX_KEY = 256
MAX_HEADERS = 8 * 1024
MAX_UNIQUE = 512

_MAX_INT = 2**63 - 1
_MIN_INT = -(2**63)
_ID = re.compile(r"[!#-\[\]-~]{1,200}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,199}")
_QUEUE = re.compile(r"[A-Za-z0-9_.:-]{1,200}")
# An integer of this many digits may exceed 64 bits, so a body that holds one is looked at closely.
_LONG_NUMBER = re.compile(rb"[,:\[]\s*-?\d{19}")
# So is one with a key that may be too long, or with a quote inside a string, where this pattern would lose its way.
_LONG_KEY = re.compile(rb'"[^"]{%d,}+":' % (MAX_KEY + 1))

_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_decode_message = msgspec.json.Decoder(TaskMessage).decode
_decode_record = msgspec.json.Decoder(ResultRecord).decode
_decode_value = msgspec.json.Decoder().decode
# Arguments that need not be counted.
_FEW = 64
_LEAVES = frozenset([str, bool, type(None)])
# What args may be by hand, and what else is found to be wrong only when it cannot be worked with.
_ROWS = frozenset([list, tuple])
# Of these nothing is left to be found when they are read.
_LOOKED_AT = frozenset(["id", "name", "args", "kwargs", "queue", "ignore_result"])
_KINDS: dict[str, tuple[type | UnionType, str]] = {
    "id": (str, "a str"),
    "name": (str, "a str"),
    "args": (list, "a list"),
    "kwargs": (dict, "a dict"),
    "retries": (int, "an int"),
    "priority": (int | None, "an int or None"),
    "queue": (str, "a str"),
    "timeout": (float | int | None, "a float or None"),
    "headers": (dict, "a dict"),
    "unique": (str | None, "a str or None"),
    "unique_window": (float | int | None, "a float or None"),
}
# The envelope's own values do not count against a body's limit.
_ENVELOPE = 2 * len(TaskMessage.__struct_fields__)


def pack(message: TaskMessage) -> bytes:
    """*message* as canonical JSON, `id` first, defaults left out.

    Raises PayloadError, which names the place, when something cannot travel.
    """
    try:
        return _packed(message)
    except (TypeError, AttributeError) as error:
        raise PayloadError(f"the message could not be read again: {_complaint(message, error)}") from error


def _packed(message: TaskMessage) -> bytes:
    check_id(message.id)
    check_name(message.name)
    check_queue(message.queue)
    if message.headers:
        check_headers(message.headers)
    if message.unique is not None:
        check_unique(message.unique)
        check_window(message.unique_window)
    if not (_fits_64_bits(message.retries) and _fits_64_bits(message.priority or 0)):
        raise PayloadError(f"priority {message.priority} or retries {message.retries} does not fit 64 bits")
    if message.timeout is not None and not 0 < message.timeout < math.inf:
        raise PayloadError(f"timeout must be a positive number of seconds, not {message.timeout!r}; None is no limit")
    args, kwargs = message.args, message.kwargs
    if type(kwargs) is not dict or type(args) not in _ROWS:
        raise TypeError("args and kwargs are a list and a dict")
    if kwargs or not _are_leaves(args):
        budget = _Budget()
        args = [tag(value, f"args[{index}]", budget) for index, value in enumerate(args)]
        kwargs = cast("dict[str, Any]", tag(kwargs, "kwargs", budget, plain=True))
    fields = _fields(message, args, kwargs)
    try:
        body = _encode(fields)
    except (UnicodeEncodeError, TypeError, ValueError) as error:
        raise PayloadError(f"the message cannot be encoded: {error}") from error
    if len(body) > MAX_BODY:
        raise PayloadError(
            f"the message has {len(body)} bytes, {MAX_BODY} are allowed; store the data elsewhere and pass where it is"
        )
    # It may have been made by hand.
    if not _LOOKED_AT.issuperset(fields) and isinstance(made := unpack(body), Undecodable):
        raise PayloadError(f"the message could not be read again: {made.why}")
    return body


def _complaint(message: TaskMessage, error: Exception) -> str:
    for name, (kind, called) in _KINDS.items():
        if not isinstance(value := getattr(message, name), kind):
            return f"{name} must be {called}, not {value!r:.80}"
    return str(error)


def unpack(raw: bytes) -> TaskMessage | Undecodable:
    """The message in *raw*, or Undecodable with the reason."""
    if len(raw) > MAX_BODY:
        return Undecodable(raw, f"{len(raw)} bytes, {MAX_BODY} are allowed")
    try:
        message = _decode_message(raw)
        # What this module wrote comes back to the same bytes: no key is there twice and nothing was dropped.
        flat = _is_flat(message)
        if not (flat or _is_small(raw)) or _encode(_fields(message, message.args, message.kwargs)) != raw:
            _inspect(raw)
        if not _is_id(message.id):
            return Undecodable(raw, "the id is not 1 to 200 printable ASCII characters")
        if not _fits(_NAME, message.name):
            return Undecodable(raw, "the task name has forbidden characters")
        if not _fits(_QUEUE, message.queue):
            return Undecodable(raw, "the queue name has forbidden characters")
        if message.retries < 0:
            return Undecodable(raw, "retries is negative")
        if message.timeout is not None and not 0 < message.timeout < math.inf:
            # A run could not even begin, and would look like the task's own failure.
            return Undecodable(raw, "timeout is not a positive number of seconds")
        if message.unique is not None and not 0 < len(message.unique) <= MAX_UNIQUE:
            return Undecodable(raw, f"the unique key has not 1 to {MAX_UNIQUE} characters")
        if message.headers and _size(message.headers) > MAX_HEADERS:
            return Undecodable(raw, f"the headers exceed {MAX_HEADERS} characters")
        if not flat and b'"$' in raw:
            message = replace(
                message,
                args=[untag(value) for value in message.args],
                kwargs={key: untag(value) for key, value in message.kwargs.items()},
            )
    except (msgspec.MsgspecError, UsageError, ValueError, RecursionError, InvalidOperation, TypeError) as error:
        return Undecodable(raw, f"{type(error).__name__}: {str(error)[:200]}")
    return message


def pack_record(record: ResultRecord) -> bytes:
    """*record* as JSON.  Raises PayloadError when the value cannot travel."""
    fields: dict[str, Any] = {"state": record.state}
    value = record.value
    if value is not None:
        fields["value"] = value if _are_leaves([value]) else tag(value, "result", _Budget())
    if record.failure is not None:
        fields["failure"] = record.failure
    if record.retries:
        fields["retries"] = record.retries
    if record.finished_at is not None:
        fields["finished_at"] = record.finished_at
    if record.started_at is not None:
        fields["started_at"] = record.started_at
    if record.worker:
        fields["worker"] = record.worker
    if record.progress is not None:
        fields["progress"] = record.progress
    try:
        body = _encode(fields)
    except (UnicodeEncodeError, TypeError, ValueError) as error:
        raise PayloadError(f"the result cannot be encoded: {error}") from error
    if len(body) > MAX_BODY:
        raise PayloadError(
            f"the result has {len(body)} bytes, {MAX_BODY} are allowed; store the data elsewhere and return where it is"
        )
    return body


def unpack_record(raw: bytes) -> ResultRecord:
    """The record in *raw*.  Raises PayloadError: records come from Chicory's own workers."""
    try:
        record = _decode_record(raw)
        return replace(record, value=untag(record.value)) if b'"$' in raw else record
    except (msgspec.MsgspecError, ValueError, RecursionError, InvalidOperation, TypeError) as error:
        raise PayloadError(f"the stored result cannot be read: {error}") from error


def pack_text(value: Any, where: str) -> str:
    """*value* as JSON for a header.  Raises PayloadError, naming *where*, when it cannot travel."""
    try:
        return _encode(value if _are_leaves([value]) else tag(value, where, _Budget())).decode()
    except UnicodeEncodeError as error:
        raise PayloadError(f"{where}: it cannot be encoded: {error}") from error


def unpack_text(text: str, where: str) -> Any:
    """The value in *text*.  Raises PayloadError, naming *where*, when there is none."""
    try:
        value = _decode_value(text)
        return untag(value) if '"$' in text else value
    except (msgspec.MsgspecError, ValueError, RecursionError, InvalidOperation, TypeError) as error:
        raise PayloadError(f"{where}: it cannot be read: {str(error)[:200]}") from error


def check_id(task_id: str) -> str:
    """*task_id*, when it is fit to be one; else PayloadError."""
    if not _is_id(task_id):
        raise PayloadError(f"task id {task_id[:80]!r} must be 1 to 200 printable ASCII characters without quotes")
    return task_id


def _is_id(word: str) -> bool:
    # Ids are mostly hex, and asking that of a str takes a third of a match.
    return (word.isalnum() and word.isascii() and len(word) <= 200) or _ID.fullmatch(word) is not None


def check_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """*headers*, when there are not too many; else PayloadError."""
    if _size(headers) > MAX_HEADERS:
        raise PayloadError(f"the headers exceed {MAX_HEADERS} characters; keep large values in the arguments")
    return headers


def check_unique(key: str) -> str:
    """*key*, when it is fit to be a unique one; else PayloadError."""
    if not 0 < len(key) <= MAX_UNIQUE:
        raise PayloadError(f"a unique key has 1 to {MAX_UNIQUE} characters, not {len(key)}; a digest is shorter")
    return key


def check_window(window: float | None) -> float | None:
    """*window*, when a unique key can be held for so many seconds; else PayloadError."""
    if window is not None and not 0 <= window <= MAX_DELAY:
        raise PayloadError(f"the window of a unique key is 0 to {MAX_DELAY:.0f} seconds, not {window}")
    return window


def fingerprint(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The same for the same arguments and for no others, in whatever order they are named.  Raises PayloadError."""
    budget = _Budget()
    tagged = [tag(value, f"args[{index}]", budget) for index, value in enumerate(args)]
    try:
        body = _encode_sorted([tagged, tag(dict(kwargs), "kwargs", budget)])
    except (UnicodeEncodeError, TypeError, ValueError) as error:
        raise PayloadError(f"the message cannot be encoded: {error}") from error
    return hashlib.blake2b(body, digest_size=16).hexdigest()


def check_queue(queue: str) -> str:
    """*queue*, when it is fit to be part of a key; else PayloadError."""
    if not _fits(_QUEUE, queue):
        raise PayloadError(f"queue name {queue[:80]!r} must be letters, digits, '_', '.', ':' or '-', at most 200")
    return queue


def check_name(name: str) -> str:
    """*name*, when it is fit to name a task; else PayloadError."""
    if type(name) is not str or not _fits(_NAME, name):
        raise PayloadError(f"task name {name!r:.80} must be letters, digits, '_', '.', ':' or '-', at most 200")
    return name


@lru_cache(1024)
def _fits(pattern: re.Pattern[str], word: str) -> bool:
    """Whether *word* matches.  There are few names of tasks and queues, and each is asked for in every message."""
    return pattern.fullmatch(word) is not None


def _fields(message: TaskMessage, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {"id": message.id, "name": message.name}
    if args:
        fields["args"] = args
    if kwargs:
        fields["kwargs"] = kwargs
    if message.headers:
        fields["headers"] = message.headers
    # Written out: this runs twice a task, and a loop over the fields takes three times as long.
    if message.retries:
        fields["retries"] = message.retries
    if message.eta is not None:
        fields["eta"] = message.eta
    if message.priority is not None:
        fields["priority"] = message.priority
    if message.queue != "default":
        fields["queue"] = message.queue
    if message.timeout is not None:
        fields["timeout"] = message.timeout
    if message.expires is not None:
        fields["expires"] = message.expires
    if message.reply_to is not None:
        fields["reply_to"] = message.reply_to
    if message.delivery_mode is not None:
        fields["delivery_mode"] = message.delivery_mode
    if message.ignore_result:
        fields["ignore_result"] = True
    if message.unique is not None:
        fields["unique"] = message.unique
    if message.unique_window is not None:
        fields["unique_window"] = message.unique_window
    if message.retry_policy is not None:
        fields["retry_policy"] = message.retry_policy
    if message.first_try is not None:
        fields["first_try"] = message.first_try
    return fields


def _is_flat(message: TaskMessage) -> bool:
    """Whether there is nothing in *message* that could be nested too deep, too many or too long."""
    return (
        _are_leaves(message.args)
        and not message.kwargs
        and not message.headers
        and message.retry_policy is None
        and _fits_64_bits(message.retries)
        and _fits_64_bits(message.priority or 0)
    )


def _is_small(raw: bytes) -> bool:
    """Whether *raw* is so small and has so few brackets that nothing in it is, so that it need not be walked."""
    return (
        len(raw) <= 2 * MAX_NODES
        and raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH
        and not _LONG_NUMBER.search(raw)
        and (len(raw) <= MAX_KEY or (b'\\"' not in raw and not _LONG_KEY.search(raw)))
    )


def _are_leaves(values: list[Any]) -> bool:
    """Whether *values* are few, and each travels as it is, without a closer look."""
    if len(values) > _FEW:
        return False
    for value in values:
        kind = cast("type[object]", type(value))
        if kind not in _LEAVES and (kind is not int or not _fits_64_bits(value)):
            return False
    return True


def _fits_64_bits(number: int) -> bool:
    return _MIN_INT <= number <= _MAX_INT


class _Budget:
    """How many more values one body may hold."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = MAX_NODES


def tag(value: Any, where: str, budget: _Budget, depth: int = 1, *, plain: bool = False) -> Any:
    """*value* as plain JSON types.  Raises PayloadError naming *where*; *plain* keeps a "$" key as it is."""
    budget.left -= 1
    if budget.left < 0:
        raise PayloadError(f"{where}: more than {MAX_NODES} values; store the data elsewhere and pass where it is")
    kind = cast("type[object]", type(value))
    if kind is str or kind is bool or value is None:
        return value
    if kind is int:
        if not _fits_64_bits(value):
            raise PayloadError(f"{where}: the integer does not fit 64 bits; pass it as a str")
        return value
    if kind is float:
        if not math.isfinite(value):
            raise PayloadError(f"{where}: {value} is not JSON; pass None or a str")
        return value
    if depth > MAX_DEPTH:
        raise PayloadError(f"{where}: nested deeper than {MAX_DEPTH}")
    if kind is list or kind is tuple:
        return [tag(item, f"{where}[{index}]", budget, depth + 1) for index, item in enumerate(value)]
    if kind is dict:
        return _tag_dict(cast("dict[Any, Any]", value), where, budget, depth, plain=plain)
    return _tag_other(value, where, budget, depth)


def _tag_dict(value: dict[Any, Any], where: str, budget: _Budget, depth: int, *, plain: bool) -> dict[str, Any]:
    tagged: dict[str, Any] = {}
    for key, item in value.items():
        if type(key) is not str:
            raise PayloadError(f"{where}: the key {key!r} is a {type(key).__name__}; JSON keys are str")
        if len(key) > MAX_KEY:
            raise PayloadError(f"{where}: a key of {len(key)} characters, {MAX_KEY} are allowed")
        tagged[key] = tag(item, f"{where}.{key}", budget, depth + 1)
    if not plain and len(tagged) == 1 and next(iter(tagged)).startswith("$"):
        return {"$object": tagged}
    return tagged


def _tag_other(value: Any, where: str, budget: _Budget, depth: int) -> Any:
    if isinstance(value, Enum):
        return tag(value.value, where, budget, depth)
    if isinstance(value, datetime):
        return {"$datetime": value.isoformat()}
    if isinstance(value, UUID):
        return {"$uuid": value.hex}
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise PayloadError(f"{where}: {value} is not a finite number")
        return {"$decimal": str(value)}
    if isinstance(value, bytes | bytearray):
        return {"$bytes": base64.b64encode(value).decode()}
    raise PayloadError(
        f"{where}: a {type(value).__name__} is not JSON; pass plain values, or datetime, UUID, Decimal or bytes; "
        "arguments and results of other types need a type hint and validation"
    )


_OPENERS: dict[str, Callable[[Any], Any]] = {
    "$datetime": datetime.fromisoformat,
    "$uuid": UUID,
    "$decimal": lambda text: _finite(Decimal(text)),
    "$bytes": lambda text: base64.b64decode(text, validate=True),
    "$object": lambda inner: {key: untag(value) for key, value in inner.items()},
}


def untag(value: Any) -> Any:
    """The inverse of `tag`.  Raises ValueError on a tag it does not know or whose content is wrong."""
    if isinstance(value, list):
        return [untag(item) for item in cast("list[Any]", value)]
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value)
        if len(items) == 1:
            (key, inner), *_ = items.items()
            if key.startswith("$"):
                if key not in _OPENERS:
                    raise ValueError(f"unknown tag {key[:40]!r}")
                try:
                    return _OPENERS[key](inner)
                except (TypeError, AttributeError, binascii.Error) as error:
                    raise ValueError(f"{key} holds {inner!r:.40}") from error
        return {key: untag(item) for key, item in items.items()}
    return value


def _finite(number: Decimal) -> Decimal:
    if not number.is_finite():
        raise ValueError(f"{number} is not a finite number")
    return number


def _size(headers: Mapping[str, str]) -> int:
    return sum(len(key) + len(value) for key, value in headers.items())


def _inspect(raw: bytes) -> None:
    """Raise ValueError when the body breaks a rule that msgspec does not check."""
    body = json.loads(raw, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    todo: list[tuple[Any, int]] = [(body, 0)]
    seen = 0
    while todo:
        value, depth = todo.pop()
        seen += 1
        if seen > MAX_NODES + _ENVELOPE:
            raise ValueError(f"more than {MAX_NODES} values")
        # The envelope and its args or kwargs are two levels above the user's own values.
        if depth > MAX_DEPTH + 2:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        if isinstance(value, int) and not _fits_64_bits(value):
            raise ValueError("an integer does not fit 64 bits")
        if isinstance(value, list):
            todo.extend((item, depth + 1) for item in cast("list[Any]", value))
        elif isinstance(value, dict):
            items = cast("dict[str, Any]", value)
            if any(len(key) > MAX_KEY for key in items):
                raise ValueError(f"a key of more than {MAX_KEY} characters")
            todo.extend((item, depth + 1) for item in items.values())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise ValueError("a key is there twice")
    return unique


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")
