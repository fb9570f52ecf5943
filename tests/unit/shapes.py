"""Classes that arguments are of, and a strategy for the values of each type hint that is supported."""

import enum
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, NotRequired, Required, TypedDict, TypeVar
from uuid import UUID

import attrs
import msgspec
from hypothesis import strategies as st

from tests.unit.messages import instants, texts

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    YES = "yes"
    NO = "no"


class Right(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Spot(enum.Enum):
    HERE = (0, 0)
    THERE = (1, 2)


@dataclass
class Item:
    price: float
    day: date
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Order:
    id: UUID
    items: list[Item]
    total: Decimal = Decimal(0)
    color: Color | None = None
    seen: int = field(default=0, init=False, compare=False)


@attrs.frozen
class Place:
    name: str
    _secret: bytes
    near: "dict[str, Place]" = attrs.field(factory=dict)


@dataclass
class Node:
    name: str
    children: "list[Node]"
    parent: "Node | None" = None


@dataclass
class Cat:
    name: str


@dataclass
class Dog:
    name: str


@dataclass
class Page(Generic[T]):
    entries: list[T]
    next: T | None = None


class Movie(TypedDict):
    title: str
    made: date
    rating: NotRequired[float]


class Sparse(TypedDict, total=False):
    name: Required[Annotated[str, "short"]]
    near: "Sparse"


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Box(msgspec.Struct, frozen=True):
    width: int
    due: date | None = None


UserId = NewType("UserId", int)

ints = st.integers(-(2**63), 2**63 - 1)
floats = st.floats(allow_nan=False, allow_infinity=False)
decimals = st.decimals(allow_nan=False, allow_infinity=False)
items = st.builds(Item, floats, st.dates(), st.frozensets(texts, max_size=3))
orders = st.builds(
    Order,
    id=st.uuids(),
    items=st.lists(items, max_size=3),
    total=decimals,
    color=st.none() | st.sampled_from(Color),
)
places = st.recursive(
    st.builds(Place, texts, st.binary(max_size=5)),
    lambda inner: st.builds(Place, texts, st.binary(max_size=5), st.dictionaries(texts, inner, max_size=2)),
    max_leaves=4,
)
leaves = st.builds(Node, texts, st.just([]))
nodes = st.recursive(leaves, lambda inner: st.builds(Node, texts, st.lists(inner, max_size=2), inner), max_leaves=4)
movies = st.fixed_dictionaries({"title": texts, "made": st.dates()}, optional={"rating": floats})
animals = st.builds(Cat, texts) | st.builds(Dog, texts)
cat_like = st.dictionaries(texts | st.just("Cat") | st.just("name"), texts, max_size=2)
paths = st.builds(Path, st.text("abc/.", min_size=1, max_size=10))

VALUES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (int, ints),
    (float, floats),
    (bool, st.booleans()),
    (str, texts),
    (None, st.none()),
    (bytes, st.binary(max_size=10)),
    (datetime, instants),
    (date, st.dates()),
    (time, st.times().map(lambda value: value.replace(fold=0))),
    (timedelta, st.timedeltas()),
    (UUID, st.uuids()),
    (Decimal, decimals),
    (Path, paths),
    (PurePosixPath, paths.map(PurePosixPath)),
    (Color, st.sampled_from(Color)),
    (Level, st.sampled_from(Level)),
    (Word, st.sampled_from(Word)),
    (Right, st.sampled_from([*Right, Right.READ | Right.WRITE])),
    (Spot, st.sampled_from(Spot)),
    (Literal[1, "1", None, Color.RED], st.sampled_from([1, "1", None, Color.RED])),
    (UserId, ints),
    (Annotated[int, "positive"], ints),
    (Any, ints | texts),
    (int | None, ints | st.none()),
    (int | float, ints | floats),
    (float | int, ints | floats),
    (bool | int | str, st.booleans() | ints | texts),
    (str | date, texts | st.dates() | st.just("2026-01-01")),
    (date | datetime | timedelta | str, st.dates() | instants | st.timedeltas() | texts),
    (str | Path, texts | paths),
    (Color | Word | str, st.sampled_from([*Color, "red", "yes"])),
    (Cat | Dog, animals),
    (Cat | dict[str, str] | None, st.builds(Cat, texts) | cat_like | st.none()),
    (list[int] | list[str], st.lists(ints, max_size=3) | st.lists(texts, max_size=3)),
    (list[int], st.lists(ints, max_size=5)),
    (list[int | None], st.lists(ints | st.none(), max_size=5)),
    (list[date], st.lists(st.dates(), max_size=5)),
    (Sequence[Item], st.lists(items, max_size=3)),
    (set[int], st.sets(ints, max_size=5)),
    (Set[UUID], st.frozensets(st.uuids(), max_size=3)),
    (frozenset[Color], st.frozensets(st.sampled_from(Color))),
    (deque[date], st.lists(st.dates(), max_size=3).map(deque)),
    (tuple[int, str], st.tuples(ints, texts)),
    (tuple[date, ...], st.lists(st.dates(), max_size=3).map(tuple)),
    (tuple[()], st.just(())),
    (Point, st.builds(Point, ints, floats)),
    (dict[str, int], st.dictionaries(texts | st.just("$uuid"), ints, max_size=3)),
    (Mapping[str, list[Decimal]], st.dictionaries(texts, st.lists(decimals, max_size=2), max_size=3)),
    (dict[int, date], st.dictionaries(ints, st.dates(), max_size=3)),
    (dict[tuple[int, str], Cat], st.dictionaries(st.tuples(ints, texts), st.builds(Cat, texts), max_size=3)),
    (OrderedDict[str, int], st.dictionaries(texts, ints, max_size=3).map(OrderedDict)),
    (Counter[str], st.dictionaries(texts, st.integers(0, 9), max_size=3).map(Counter)),
    (list, st.lists(ints | texts, max_size=3)),
    (dict, st.dictionaries(texts, ints, max_size=3)),
    (Item, items),
    (Order, orders),
    (Place, places),
    (Node, nodes),
    (Page[date], st.builds(Page, st.lists(st.dates(), max_size=3), st.none() | st.dates())),
    (Page[Cat], st.builds(Page, st.lists(st.builds(Cat, texts), max_size=2))),
    (Movie, movies),
    (Sparse, st.fixed_dictionaries({"name": texts}, optional={"near": texts.map(lambda name: {"name": name})})),
    (Movie | dict[str, int], movies | st.dictionaries(texts, ints, max_size=2)),
    (Movie | Sparse | None, movies | st.fixed_dictionaries({"name": texts}) | st.none()),
    (Mapping[str, int] | dict[str, str], st.dictionaries(texts, ints, max_size=2) | st.just({"a": "b"})),
    (list[int] | tuple[int, ...] | Point, st.lists(ints, max_size=2) | st.just((1, 2)) | st.just(Point(1, 2.0))),
    (Box, st.builds(Box, ints, st.none() | st.dates())),
    (Box | None, st.none() | st.builds(Box, ints)),
    (dict[str, list[Order | None]], st.dictionaries(texts, st.lists(orders | st.none(), max_size=2), max_size=2)),
]
