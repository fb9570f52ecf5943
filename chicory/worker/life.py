"""A worker's life within the lifespans of its app: each is entered before the first task, and left after the last."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, final

import trio

from chicory.app import Chicory
from chicory.errors import LifespanError
from chicory.groups import sole
from chicory.lifespan import opened
from chicory.types import Flavor
from chicory.worker.flavors import Flavors

log = logging.getLogger("chicory.worker")


@final
class Life:
    """The lifespans of *app* in one worker.

    limit: seconds that leaving one of them may take, asked for when it begins.
    """

    def __init__(self, app: Chicory, flavors: Flavors, *, limit: Callable[[], float]) -> None:
        self._app = app
        self._flavors = flavors
        self._limit = limit
        self._entering: trio.CancelScope | None = None
        # Whether all are entered.
        self.begun = not app.lifespans

    async def live(self, body: Callable[[], Awaitable[None]]) -> None:
        """Await *body* within all lifespans.  Raises LifespanError when one of them fails, and what *body* raises."""
        try:
            await self._within(list(self._app.lifespans), body)
        except ExceptionGroup as error:
            raise sole(error) from None

    def abandon(self) -> None:
        """Do not begin, where that is still being done."""
        if self._entering is not None:
            self._entering.cancel()

    async def _within(self, flavors: list[Flavor], body: Callable[[], Awaitable[None]]) -> None:
        if not flavors:
            self.begun = True
            await body()
            return
        flavor, *others = flavors
        enter = self._on_asyncio if flavor == "asyncio" else self._on_trio
        await enter(flavor, partial(self._within, others, body))

    async def _on_trio(self, flavor: Flavor, body: Callable[[], Awaitable[None]]) -> None:
        failed: Exception | None = None
        # Around all of it: a lifespan may have a nursery open, and scopes end in the reverse of their order.
        with self._scope() as scope:
            try:
                async with self._opened(flavor) as state:
                    self._enter(flavor, state)
                    failed = await self._completed(body, scope)
            except Exception as error:
                raise self._complaint(flavor, error) from error
        self._tell(flavor, scope)
        if failed is not None:
            raise failed

    async def _on_asyncio(self, flavor: Flavor, body: Callable[[], Awaitable[None]]) -> None:
        failed: Exception | None = None
        entered, leave = trio.Event(), trio.Event()
        scope = self._scope()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hold, flavor, scope, entered, leave)
            await entered.wait()
            if flavor in self._flavors.states:
                try:
                    failed = await self._completed(body, scope)
                finally:
                    leave.set()
        self._tell(flavor, scope)
        if failed is not None:
            raise failed

    async def _completed(self, body: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> Exception | None:
        """What *body* raised: it is not of a lifespan's making, so not for one to see."""
        try:
            await body()
        except Exception as error:
            return error
        finally:
            self._end(scope)
        return None

    async def _hold(self, flavor: Flavor, scope: trio.CancelScope, entered: trio.Event, leave: trio.Event) -> None:
        def enter(state: Any) -> None:
            self._enter(flavor, state)
            # From now on it outlives whatever happens to the tasks.
            scope.shield = True
            entered.set()

        with scope:
            try:
                await self._flavors.loop().hold(self._opened(flavor), enter, leave)
            except Exception as error:
                raise self._complaint(flavor, error) from error
        entered.set()

    def _opened(self, flavor: Flavor) -> AbstractAsyncContextManager[Any]:
        return opened(self._app.lifespans[flavor], self._app)

    def _scope(self) -> trio.CancelScope:
        self._entering = trio.CancelScope()
        return self._entering

    def _enter(self, flavor: Flavor, state: Any) -> None:
        self._entering = None
        self._flavors.states[flavor] = state

    def _end(self, scope: trio.CancelScope) -> None:
        """What is in *scope* is to be left, in time, and whoever cancels the worker does not disturb it."""
        scope.shield = True
        scope.deadline = trio.current_time() + self._limit()

    def _tell(self, flavor: Flavor, scope: trio.CancelScope) -> None:
        if flavor in self._flavors.states and scope.cancelled_caught:
            log.error("the %s lifespan of the app did not end in time; it was cancelled", flavor)

    def _complaint(self, flavor: Flavor, error: BaseException) -> LifespanError:
        error = sole(error)
        when = "failed" if flavor in self._flavors.states else "failed at its start"
        complaint = LifespanError(f"the {flavor} lifespan of the app {when}: {type(error).__name__}: {error}")
        log.error("%s", complaint, exc_info=error)
        return complaint
