"""From a type hint to its codec."""

import functools
import types
from enum import Enum
from pathlib import PurePath
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Literal,
    NewType,
    NotRequired,
    Required,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from chicory.validation.codec import ANY, Codec, UnsupportedHint
from chicory.validation.containers import MAPPINGS, SEQUENCES, fixed, mapping, sequence
from chicory.validation.leaves import LEAVES, TEXTS, enum, literal, path
from chicory.validation.models import is_pydantic, is_struct, pydantic, struct
from chicory.validation.union import union

if TYPE_CHECKING:
    from chicory.validation.records import Records


def codec(hint: Any) -> Codec:
    """The codec of *hint*; raises UnsupportedHint when its values cannot be held to it."""
    hint = _plain(hint)
    if hint is Any or hint is object or isinstance(hint, TypeVar):
        return ANY
    if hint is None:
        hint = types.NoneType
    simple = _simple(hint)
    if simple is not None:
        return simple
    origin, args = get_origin(hint) or hint, get_args(hint)
    if origin is Union or origin is types.UnionType:
        return union([codec(member) for member in args])
    if origin is Literal:
        return literal(args)
    if origin is tuple:
        return _tuple(hint, args)
    if origin in SEQUENCES:
        return sequence(origin, codec(args[0]) if args else ANY)
    if origin in MAPPINGS:
        # A Counter has a key type only.
        key, item = (codec(args[0]), codec(args[1] if len(args) > 1 else int)) if args else (ANY, ANY)
        return mapping(origin, key, item)
    if _is_named_tuple(origin):
        return _named_tuple(origin)
    if is_struct(hint):
        return struct(hint)
    if _is_record(origin):
        return _records().codec(hint)
    raise UnsupportedHint(f"values cannot be held to {getattr(hint, '__qualname__', hint)}")


def _plain(hint: Any) -> Any:
    """*hint* without what says nothing of the value."""
    while True:
        if isinstance(hint, NewType):
            hint = hint.__supertype__
        elif get_origin(hint) in (Annotated, Final, Required, NotRequired):
            hint = get_args(hint)[0]
        elif type(hint).__name__ == "TypeAliasType":
            hint = hint.__value__
        else:
            return hint


def _simple(hint: Any) -> Codec | None:
    """The codec of a class that has no parts."""
    if not isinstance(hint, type):
        return None
    if hint in LEAVES or hint in TEXTS:
        return LEAVES.get(hint) or TEXTS[hint]
    if issubclass(hint, Enum):
        return enum(hint)
    if issubclass(hint, PurePath):
        return path(hint)
    return pydantic(hint) if is_pydantic(cast("type[object]", hint)) else None


def _tuple(hint: Any, args: tuple[Any, ...]) -> Codec:
    if hint is tuple or (len(args) == 2 and args[1] is Ellipsis):
        return sequence(tuple, codec(args[0]) if args else ANY)
    items = [codec(item) for item in args]
    name = f"tuple[{', '.join(item.name for item in items)}]"
    return fixed(name, items, tuple, tuple, [f"[{index}]" for index in range(len(items))])


def _named_tuple(cls: Any) -> Codec:
    hints = get_type_hints(cls)
    items = [codec(hints.get(field, Any)) for field in cls._fields]
    return fixed(cls.__name__, items, cls._make, cls, [f".{field}" for field in cls._fields])


def _is_named_tuple(cls: Any) -> bool:
    return isinstance(cls, type) and tuple in cls.__mro__ and hasattr(cls, "_fields")


def _is_record(cls: Any) -> bool:
    if not isinstance(cls, type):
        return False
    return is_typeddict(cls) or hasattr(cls, "__attrs_attrs__") or hasattr(cls, "__dataclass_fields__")


@functools.cache
def _records() -> "Records":
    from chicory.validation.records import Records

    return Records(codec)
