"""Codecs of lists, sets, tuples and mappings."""

from collections import Counter, OrderedDict, deque
from collections.abc import (
    Callable,
    Collection,
    Iterable,
    Mapping,
    MutableMapping,
    MutableSequence,
    MutableSet,
    Sequence,
)
from collections.abc import Set as AnySet
from typing import Any, cast

from chicory.validation.codec import ANY, Codec, Refused, Stray, Within, load_each

_LIST: frozenset[type] = frozenset({list})
_DICT: frozenset[type] = frozenset({dict})

# What a hint takes, and what arrives.
_SEQUENCES: dict[Any, tuple[tuple[type, ...], Callable[[list[Any]], Any]]] = {
    list: ((list,), list),
    tuple: ((tuple,), tuple),
    Sequence: ((list, tuple), list),
    MutableSequence: ((list,), list),
    Iterable: ((list, tuple, set, frozenset), list),
    Collection: ((list, tuple, set, frozenset), list),
    set: ((set,), set),
    MutableSet: ((set,), set),
    frozenset: ((frozenset,), frozenset),
    AnySet: ((set, frozenset), frozenset),
    deque: ((deque,), deque),
}
_MAPPINGS: dict[Any, tuple[tuple[type, ...], Callable[[dict[Any, Any]], Any]]] = {
    dict: ((dict,), dict),
    Mapping: ((Mapping,), dict),
    MutableMapping: ((MutableMapping,), dict),
    OrderedDict: ((OrderedDict,), OrderedDict),
    Counter: ((Counter,), Counter),
}
SEQUENCES = _SEQUENCES.keys()
MAPPINGS = _MAPPINGS.keys()


def sequence(origin: Any, item: Codec) -> Codec:
    """Of lists, sets and the like, which travel as lists.  A str is none, although it is a sequence to Python."""
    accepts, make = _SEQUENCES[origin]
    name = f"{origin.__name__}[{item.name}]"

    def dump(value: Any) -> Any:
        if not isinstance(value, accepts):
            return Stray(value)
        values = cast("Collection[Any]", value)
        return list(values) if _as_they_are(item, values) else [item.dump(one) for one in values]

    def load(raw: Any, _: Any = None) -> Any:
        if type(raw) is not list:
            raise Refused(name, raw)
        raws = cast("list[Any]", raw)
        if not _as_they_are(item, raws):
            raws = load_each(item.load, raws, _index)
        return raws if make is list else make(raws)

    return Codec(name=name, dump=dump, load=load, takes=frozenset(accepts), kinds=_LIST)


def fixed(
    name: str, items: Sequence[Codec], make: Callable[[list[Any]], Any], accepts: type, steps: Sequence[str]
) -> Codec:
    """Of tuples of a certain length, which travel as lists; a NamedTuple's places have names."""

    def dump(value: Any) -> Any:
        if not isinstance(value, accepts):
            return Stray(value)
        values = cast("tuple[Any, ...]", value)
        if len(values) != len(items):
            return list(values)
        return [item.dump(one) for item, one in zip(items, values, strict=True)]

    def load(raw: Any, _: Any = None) -> Any:
        if type(raw) is not list:
            raise Refused(name, raw)
        raws = cast("list[Any]", raw)
        if len(raws) != len(items):
            raise Refused(f"{name} of {len(items)} values", raw)
        pairs = zip(items, raws, strict=True)
        return make(load_each(_load_pair, pairs, steps.__getitem__))

    return Codec(name=name, dump=dump, load=load, takes=frozenset({accepts}), kinds=_LIST)


def mapping(origin: Any, key: Codec, item: Codec) -> Codec:
    """Of mappings: objects where the keys are str, and lists of pairs where they are not, since JSON has no others."""
    accepts, make = _MAPPINGS[origin]
    name = f"{origin.__name__}[{key.name}, {item.name}]"
    if key is not ANY and str not in key.exact:
        return _pairs(name, key, item, accepts, make)

    def dump(value: Any) -> Any:
        if not isinstance(value, accepts):
            return Stray(value)
        values = cast("Mapping[Any, Any]", value)
        if _as_they_are(item, values.values()):
            return dict(values)
        return {one: item.dump(other) for one, other in values.items()}

    def load(raw: Any, _: Any = None) -> Any:
        if type(raw) is not dict:
            raise Refused(name, raw)
        raws = cast("dict[Any, Any]", raw)
        if not _as_they_are(key, raws):
            load_each(key.load, raws, lambda index: f" key {index + 1}")
        if not _as_they_are(item, raws.values()):
            names = list(raws)
            loaded = load_each(item.load, raws.values(), lambda index: _key(names[index]))
            raws = dict(zip(names, loaded, strict=True))
        return raws if make is dict else make(raws)

    return Codec(name=name, dump=dump, load=load, takes=_taken(accepts), kinds=_DICT)


def _pairs(
    name: str, key: Codec, item: Codec, accepts: tuple[type, ...], make: Callable[[dict[Any, Any]], Any]
) -> Codec:
    def dump(value: Any) -> Any:
        if not isinstance(value, accepts):
            return Stray(value)
        return [[key.dump(one), item.dump(other)] for one, other in cast("Mapping[Any, Any]", value).items()]

    def load(raw: Any, _: Any = None) -> Any:
        if type(raw) is not list:
            raise Refused(name, raw)
        raws = cast("list[Any]", raw)
        for index, pair in enumerate(raws):
            if type(pair) is not list or len(cast("list[Any]", pair)) != 2:
                raise Within([(_index(index), Refused("a list of a key and a value", pair))])
        keys = load_each(key.load, [pair[0] for pair in raws], lambda index: f" key {index + 1}")
        values = load_each(item.load, [pair[1] for pair in raws], lambda index: _key(keys[index]))
        return make(dict(zip(keys, values, strict=True)))

    return Codec(name=name, dump=dump, load=load, takes=_taken(accepts), kinds=_LIST)


def _taken(accepts: tuple[type, ...]) -> frozenset[type]:
    return frozenset[type](kind for kind in (dict, OrderedDict, Counter) if issubclass(kind, accepts))


def _as_they_are(item: Codec, values: Iterable[Any]) -> bool:
    return item is ANY or (bool(item.exact) and set(map(type, values)) <= item.exact)


def _load_pair(pair: tuple[Codec, Any]) -> Any:
    codec, raw = pair
    return codec.load(raw)


def _index(index: int) -> str:
    return f"[{index}]"


def _key(key: Any) -> str:
    text = repr(key)
    return f"[{text if len(text) <= 40 else text[:37] + '...'}]"
