"""The codec of a union: which of its types a value is of must be as clear when it arrives as when it was sent.

Mostly the JSON itself tells: None, a number and a text are different things.  Types that look alike on the wire, say
two dataclasses, or a date beside a str, travel under their names, as an object with one key: {"Cat": {...}}.
"""

from collections.abc import Sequence
from typing import Any, cast

from chicory.validation.codec import ANY, Codec, Refused, Stray

_DICT: frozenset[type] = frozenset({dict})


def union(members: Sequence[Codec]) -> Codec:
    """Of values that are of one of *members*."""
    if ANY in members:
        return ANY
    # Last, because it is the only one that takes what is another's: an int.
    members = sorted(members, key=lambda member: float in member.exact)
    named = _named(members)
    labels = {id(member): label for label, member in named.items()}
    by_kind = {kind: member for member in reversed(members) if id(member) not in labels for kind in member.kinds or ()}
    if float in by_kind:
        by_kind.setdefault(int, by_kind[float])
    claims = [kind for member in members for kind in member.takes]
    by_type = {kind: member for member in members for kind in member.takes if claims.count(kind) == 1}
    name = " | ".join(member.name for member in members)

    def label(member: Codec, raw: Any) -> Any:
        return {labels[id(member)]: raw} if id(member) in labels else raw

    def dump(value: Any) -> Any:
        chosen = by_type.get(cast("type[object]", type(value)))
        if chosen is not None:
            return label(chosen, chosen.dump(value))
        for member in members:
            raw = member.dump(value)
            if _arrives(member, raw):
                return label(member, raw)
        return Stray(value)

    def load(raw: Any, _: Any = None) -> Any:
        kind = cast("type[object]", type(raw))
        if kind is dict and named and len(raw) == 1:
            (key,) = raw
            if key in named:
                return named[key].load(raw[key])
        chosen = by_kind.get(kind)
        if chosen is None:
            raise Refused(name, raw)
        return chosen.load(raw)

    return Codec(
        name=name,
        dump=dump,
        load=load,
        exact=frozenset(kind for member in members for kind in member.exact if by_kind.get(kind) is member),
        takes=frozenset(by_type),
        kinds=frozenset[type](by_kind) | (_DICT if named else frozenset[type]()),
    )


def _named(members: Sequence[Codec]) -> dict[str, Codec]:
    """The members that travel under a name."""
    alike = [member for member in members if not member.bare and _has_likeness(member, members)]
    if alike:
        # An object with one key must be what it seems, so no other object stays without a name.
        alike = [member for member in members if member in alike or dict in (member.kinds or ())]
    named: dict[str, Codec] = {}
    for member in alike:
        label, number = member.name, 2
        while label in named:
            label, number = f"{member.name} {number}", number + 1
        named[label] = member
    return named


def _has_likeness(member: Codec, members: Sequence[Codec]) -> bool:
    others = [other for other in members if other is not member]
    return any(member.kinds is None or other.kinds is None or member.kinds & other.kinds for other in others)


def _arrives(member: Codec, raw: Any) -> bool:
    try:
        member.load(raw)
    except Exception:
        return False
    return True
