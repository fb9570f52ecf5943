"""Exceptions that come in groups, as nurseries make them of what is raised within.

Groups may be nested without end, and what a task raises may lie: a class can say that it is another one, or that its
instances hold other exceptions than they do.  So nothing here is recursive, and all is asked of the interpreter's own
types instead of the exceptions.
"""

from collections.abc import Callable, Iterator
from typing import TypeGuard, TypeVar

E = TypeVar("E", bound=BaseException)

_members: Callable[[BaseException], tuple[BaseException, ...]] = vars(BaseExceptionGroup)["exceptions"].__get__


def is_a(error: BaseException, kind: type[E]) -> TypeGuard[E]:
    """Whether *error* really is one of *kind*; isinstance() believes what an object says of its class."""
    return issubclass(type(error), kind)


def members(error: BaseException) -> tuple[BaseException, ...]:
    """What is right inside *error*; nothing when it is no group."""
    return _members(error) if is_a(error, BaseExceptionGroup) else ()


def sole(error: BaseException) -> BaseException:
    """The one exception inside nested groups of one: what a driver's own nursery makes of an error."""
    while len(inside := members(error)) == 1:
        (error,) = inside
    return error


def holds(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether *error* is one of *kind*, or a group with one in it."""
    return any(is_a(one, kind) for one in walk(error))


def walk(error: BaseException, *, but: Callable[[BaseException], bool] | None = None) -> Iterator[BaseException]:
    """*error* and all that is in it, each once; without those of which *but* is true, and without what is in them."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        one = todo.pop()
        if id(one) not in seen:
            seen.add(id(one))
            if but is None or not but(one):
                yield one
                todo.extend(members(one))
