"""Waiting for many results at once, in as few round trips as one takes."""

from collections.abc import AsyncIterator, Generator, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, final, overload

from chicory.errors import ChicoryError, ResultTimeout, UsageError
from chicory.links.executor import running
from chicory.links.sync_executor import finish
from chicory.result import AsyncResult
from chicory.types import ResultRecord

if TYPE_CHECKING:
    from chicory.backends.base import Backend

__all__ = ["as_completed", "as_completed_sync", "gather", "gather_sync"]

R = TypeVar("R")


@overload
async def gather(
    results: Iterable[AsyncResult[R]], timeout: float | None = None, *, return_exceptions: Literal[False] = False
) -> list[R]: ...
@overload
async def gather(
    results: Iterable[AsyncResult[R]], timeout: float | None = None, *, return_exceptions: bool
) -> list[R | Exception]: ...
async def gather(
    results: Iterable[AsyncResult[Any]], timeout: float | None = None, *, return_exceptions: bool = False
) -> list[Any]:
    """What the tasks returned, in the order of *results*, once all have finished.

    When some have failed, what `get` raises for the first of them is raised; with *return_exceptions* these errors
    stand among the values.  Raises ResultTimeout when not all are finished within *timeout* seconds; the tasks go on.
    """
    results = list(results)
    over = await _wait(results, len({result.id for result in results}), timeout)
    return [_value(result, over[result.id], keep=return_exceptions) for result in results]


def gather_sync(
    results: Iterable[AsyncResult[Any]], timeout: float | None = None, *, return_exceptions: bool = False
) -> list[Any]:
    """`gather` for sync code: blocks this thread."""
    return finish(gather(results, timeout, return_exceptions=return_exceptions), "await gather()")


@final
class as_completed(AsyncIterator[AsyncResult[R]]):  # noqa: N801  it is called like a function
    """Each of *results* when its task has finished, the first to finish first; `get` of it waits for nothing.

    Raises ResultTimeout when not all are finished *timeout* seconds after this was made.
    """

    def __init__(self, results: Iterable[AsyncResult[R]], timeout: float | None = None) -> None:
        self._waiting: dict[str, list[AsyncResult[R]]] = {}
        for result in results:
            self._waiting.setdefault(result.id, []).append(result)
        self._over: list[AsyncResult[R]] = []
        self._timeout = timeout
        self._deadline = None if timeout is None else running().now() + timeout

    def __aiter__(self) -> "as_completed[R]":
        return self

    async def __anext__(self) -> AsyncResult[R]:
        if not self._over:
            if not self._waiting:
                raise StopAsyncIteration
            await self._look()
        return self._over.pop(0)

    async def _look(self) -> None:
        left = None if self._deadline is None else max(0.0, self._deadline - running().now())
        firsts = [results[0] for results in self._waiting.values()]
        for task_id, record in (await _wait(firsts, 1, left)).items():
            self._over += [result.knowing(record) for result in self._waiting.pop(task_id)]


def as_completed_sync(results: Iterable[AsyncResult[R]], timeout: float | None = None) -> Generator[AsyncResult[R]]:
    """`as_completed` for sync code: each step blocks this thread."""

    async def begin() -> as_completed[R]:
        return as_completed(results, timeout)

    completed = finish(begin(), "use as_completed()")
    while True:
        try:
            result = finish(completed.__anext__(), "use as_completed()")
        except StopAsyncIteration:
            return
        yield result


async def _wait(results: list[AsyncResult[Any]], count: int, timeout: float | None) -> dict[str, ResultRecord]:
    """How the tasks of *count* of *results*, at least, have ended."""
    if not results:
        await running().sleep(0)
        return {}
    backend, ids = _backend_of(results), list({result.id: None for result in results})
    over: dict[str, ResultRecord] = {}
    if timeout is None:
        over |= await backend.wait_many(ids, count)
    else:
        found = await running().within(timeout, backend.wait_many(ids, count)) if timeout > 0 else None
        # Who has no time to wait may still look.
        over |= await backend.fetch_many(ids) if found is None else found
    over = {task_id: record for task_id, record in over.items() if not record.state.awaited}
    if len(over) < count:
        raise ResultTimeout(f"{len(ids) - len(over)} of {len(ids)} tasks are not finished in time; they go on")
    return over


def _backend_of(results: list[AsyncResult[Any]]) -> "Backend":
    first, *others = [result.backend() for result in results]
    if any(other is not first for other in others):
        raise UsageError("these results are kept in several backends; wait for those of each app by themselves")
    return first


def _value(result: AsyncResult[Any], record: ResultRecord, *, keep: bool) -> Any:
    try:
        return result.value(record)
    except ChicoryError as error:
        if keep:
            return error
        raise
