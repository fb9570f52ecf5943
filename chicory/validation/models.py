"""Codecs of pydantic and msgspec models, which know themselves what they hold and how it is written.

They are recognised by what they have, so whoever uses neither has neither imported.
"""

from typing import Any, cast, get_origin

import msgspec

from chicory.validation.codec import Codec, Refused, Stray

_DICT: frozenset[type] = frozenset({dict})
_LIST: frozenset[type] = frozenset({list})


def is_pydantic(cls: type) -> bool:
    """Whether *cls* is a pydantic model."""
    return all(hasattr(cls, name) for name in ("__pydantic_validator__", "model_validate", "model_dump"))


def pydantic(cls: Any) -> Codec:
    """Of a pydantic model: its own rules hold, strict or not, when it arrives."""

    def dump(value: Any) -> Any:
        return value.model_dump(mode="json", by_alias=True) if type(value) is cls else Stray(value)

    def load(raw: Any, _: Any = None) -> Any:
        if isinstance(raw, Stray):
            raise Refused(cls.__name__, raw)
        return cls.model_validate(raw)

    # A root model may be a list or a number.
    kinds = None if getattr(cls, "__pydantic_root_model__", False) else _DICT
    return Codec(name=cls.__name__, dump=dump, load=load, takes=frozenset({cls}), kinds=kinds)


def is_struct(hint: Any) -> bool:
    """Whether *hint* is a msgspec Struct; it may be generic."""
    cls = get_origin(hint) or hint
    return isinstance(cls, type) and issubclass(cls, msgspec.Struct)


def struct(hint: Any) -> Codec:
    """Of a msgspec Struct."""
    cls = cast("type[msgspec.Struct]", get_origin(hint) or hint)

    def dump(value: Any) -> Any:
        return msgspec.to_builtins(value, str_keys=True) if type(value) is cls else Stray(value)

    def load(raw: Any, _: Any = None) -> Any:
        if isinstance(raw, Stray):
            raise Refused(cls.__name__, raw)
        return msgspec.convert(raw, hint, str_keys=True)

    kinds = _LIST if cls.__struct_config__.array_like else _DICT
    return Codec(name=cls.__name__, dump=dump, load=load, takes=frozenset({cls}), kinds=kinds)
