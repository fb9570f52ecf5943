"""Lifespan: what an app opens in every worker process before its first task, and closes after the last one."""

import inspect
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from chicory.conditions import check_flavor
from chicory.errors import UsageError
from chicory.types import Flavor

if TYPE_CHECKING:
    from chicory.app import Chicory

# Takes the app; what it yields is the state that tasks find in their context.
Lifespan = Callable[["Chicory"], AsyncIterator[Any] | AbstractAsyncContextManager[Any]]


def lifespans_of(given: Lifespan | Mapping[Flavor, Lifespan] | None, flavor: Flavor) -> Mapping[Flavor, Lifespan]:
    """*given* by the flavor of the loop that each is entered on; one alone is of *flavor*."""
    if given is None:
        return {}
    lifespans: Mapping[Flavor, Lifespan] = cast(
        "Mapping[Flavor, Lifespan]", given if isinstance(given, Mapping) else {flavor: given}
    )
    for one in map(check_flavor, lifespans):
        if not callable(lifespans[one]):
            raise UsageError(f"a lifespan is an async generator function of the app, not {lifespans[one]!r}")
    return lifespans


def opened(lifespan: Lifespan, app: "Chicory") -> AbstractAsyncContextManager[Any]:
    """*lifespan* of *app*, to be entered."""
    if inspect.isasyncgenfunction(lifespan):
        return asynccontextmanager(cast("Callable[[Chicory], AsyncGenerator[Any]]", lifespan))(app)
    manager = lifespan(app)
    if not isinstance(manager, AbstractAsyncContextManager):
        raise UsageError(f"a lifespan gives an async context manager, and {lifespan!r} gave {manager!r}")
    return manager
