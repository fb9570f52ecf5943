"""Codecs of dataclasses, attrs classes and TypedDicts: objects with a key for each field.  cattrs writes their code.

Imported only where a hint names such a class: cattrs costs a worker tens of milliseconds and some memory.
"""

import threading
from collections.abc import Callable
from typing import Any, cast, get_args, get_origin, is_typeddict

from cattrs import Converter

from chicory.validation.codec import Codec, Dump, Load, Refused, Stray

_DICT: frozenset[type] = frozenset({dict})


class _Fields(Converter):
    """A converter that leaves every field to *codec*; cattrs' own hooks take "7" for an int.

    A key that a class does not have is refused: it would be lost, and may have been a slip for one that it has.
    """

    def __init__(self, codec: Callable[[Any], Codec]) -> None:
        super().__init__(detailed_validation=True, forbid_extra_keys=True)
        self._codec = codec

    def get_structure_hook(self, type: Any, cache_result: bool = True) -> Load:  # noqa: A002
        return self._codec(type).load

    def get_unstructure_hook(self, type: Any, cache_result: bool = True) -> Dump:  # noqa: A002
        return self._codec(type).dump

    # For fields without a type.
    def structure(self, obj: Any, cl: Any) -> Any:
        return obj

    def unstructure(self, obj: Any, unstructure_as: Any = None) -> Any:
        return obj


class Records:
    """Makes each codec once.  *codec* gives those of the fields."""

    def __init__(self, codec: Callable[[Any], Codec]) -> None:
        self._converter = _Fields(codec)
        self._made: dict[Any, Codec] = {}
        # No other thread may meet a codec that is not made yet.
        self._making = threading.RLock()

    def codec(self, hint: Any) -> Codec:
        """Of the class *hint*, which may be generic: `Page[int]`."""
        with self._making:
            if hint not in self._made:
                before = len(self._made)
                # Until it is made, for fields of its own type.
                self._made[hint] = self._later(hint)
                try:
                    self._made[hint] = self._make(hint)
                except BaseException:
                    # With all that was made for its fields: they may rely on it.
                    for made in list(self._made)[before:]:
                        del self._made[made]
                    raise
            return self._made[hint]

    def _later(self, hint: Any) -> Codec:
        def dump(value: Any) -> Any:
            return self._made[hint].dump(value)

        def load(raw: Any, _: Any = None) -> Any:
            return self._made[hint].load(raw)

        return self._named(hint, dump, load)

    def _make(self, hint: Any) -> Codec:
        cls = get_origin(hint) or hint
        if is_typeddict(cls):
            return self._named(hint, *self._typed_dict(hint))
        return self._named(hint, *self._class(hint, cls))

    def _named(self, hint: Any, dump: Dump, load: Load) -> Codec:
        cls = get_origin(hint) or hint
        # A TypedDict is at run time a dict like any other.
        takes = _DICT if is_typeddict(cls) else frozenset[type]({cls})
        return Codec(name=_name(hint), dump=dump, load=load, takes=takes, kinds=_DICT)

    def _class(self, hint: Any, cls: type) -> tuple[Dump, Load]:
        to_dict: Dump = self._converter.gen_unstructure_attrs_fromdict(hint)
        from_dict: Load = self._converter.gen_structure_attrs_fromdict(hint)
        name = _name(hint)

        def dump(value: Any) -> Any:
            # Not a subclass either: it would arrive as its base, without what it has of its own.
            return to_dict(value) if type(value) is cls else Stray(value)

        def load(raw: Any, _: Any = None) -> Any:
            if type(raw) is not dict:
                raise Refused(name, raw)
            return from_dict(raw, hint)

        return dump, load

    def _typed_dict(self, hint: Any) -> tuple[Dump, Load]:
        converter = cast("Any", self._converter)
        to_dict: Dump = converter.gen_unstructure_typeddict(hint)
        from_dict: Load = converter.gen_structure_typeddict(hint)
        name = _name(hint)

        def dump(value: Any) -> Any:
            if type(value) is not dict:
                return Stray(value)
            try:
                return to_dict(cast("Any", value))
            except KeyError:
                return cast("Any", value)  # a key is missing; loading says which

        def load(raw: Any, _: Any = None) -> Any:
            if type(raw) is not dict:
                raise Refused(name, raw)
            return from_dict(raw, hint)

        return dump, load


def _name(hint: Any) -> str:
    name = str(getattr(hint, "__name__", hint))
    return f"{name}[{', '.join(map(_name, get_args(hint)))}]" if get_args(hint) else name
