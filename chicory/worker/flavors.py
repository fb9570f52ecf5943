"""Where the functions of tasks run: on trio with the worker itself, in a thread, in a child process, or on asyncio."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, final

import trio

from chicory.app import Chicory
from chicory.context import NO_STATE
from chicory.task import Task
from chicory.types import Flavor, TaskMessage
from chicory.worker.children import Children

if TYPE_CHECKING:
    from chicory.links.asyncio_loop import AsyncioLoop


class Elsewhere(Protocol):
    """Calls a function for a run of a task somewhere else than on trio, and waits for it; a cancellation reaches it."""

    async def __call__(
        self, message: TaskMessage, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], /
    ) -> Any: ...


@final
class Flavors:
    """The places that one worker has for tasks."""

    def __init__(self) -> None:
        # The worker's concurrency is the limit; a thread of an abandoned run must not count against the others.
        self._limiter = trio.CapacityLimiter(math.inf)
        self._children = Children()
        # One for the process, begun when it is first needed; another one if it breaks.
        self.asyncio_loop: AsyncioLoop | None = None
        # What the lifespans of the app gave.
        self.states: dict[Flavor, Any] = {}

    def elsewhere(self, task: Task[..., Any]) -> Elsewhere | None:
        """Where *task* runs; None is on trio."""
        if not task.is_async:
            return partial(self._children.call, task.app.carried) if task.settings.process else self._in_a_thread
        return self._on_asyncio if task.flavor == "asyncio" else None

    def state(self, task: Task[..., Any]) -> Any:
        """What *task* finds in its context: of its own flavor, or of the one there is."""
        own: Flavor = task.flavor or task.app.flavor
        return self.states[own] if own in self.states else next(iter(self.states.values()), NO_STATE)

    def loop(self) -> "AsyncioLoop":
        """The asyncio loop."""
        loop = self.asyncio_loop
        if loop is None or loop.over:
            from chicory.links.asyncio_loop import AsyncioLoop

            loop = self.asyncio_loop = AsyncioLoop()
        return loop

    async def aclose(self) -> None:
        """End what was begun for tasks, none of which runs any more."""
        await self._children.aclose()
        if self.asyncio_loop is not None:
            await self.asyncio_loop.aclose()

    async def _in_a_thread(
        self, message: TaskMessage, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        # Not abandoned when cancelled: a delivery whose thread still runs must not be given back, or it runs twice.
        value, error = await trio.to_thread.run_sync(attempt, function, args, kwargs, limiter=self._limiter)
        if error is None:
            return value
        try:
            raise error
        finally:
            # Its traceback holds this frame.
            del error

    async def _on_asyncio(
        self, message: TaskMessage, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        return await self.loop().call(_known, (message, function, args, kwargs), {})


def attempt(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Any, BaseException | None]:
    """What *function* returns or raises.  A thread that raises is waited for in vain if the exception is an odd one."""
    try:
        return function(*args, **kwargs), None
    except BaseException as error:
        return None, error


async def _known(
    message: TaskMessage, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Any:
    """Call *function*.  The watchdog knows by this frame whose run it looks at."""
    return await function(*args, **kwargs)


def prepare(app: Chicory) -> None:
    """Import what the flavors of *app* need."""
    if "asyncio" in app.lifespans or any(task.flavor == "asyncio" for task in app.tasks.values()):
        import chicory.links.asyncio_loop  # noqa: F401  # pyright: ignore[reportUnusedImport]
