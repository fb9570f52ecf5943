"""Why what a task returned is no result."""

import inspect
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, cast

from chicory.errors import UsageError
from chicory.groups import is_a
from chicory.worker.failure import describe

_WORK = frozenset([CoroutineType, GeneratorType, AsyncGeneratorType])


def unfit(value: object, error: BaseException) -> str:
    """What is wrong with a *value* that could not be packed or validated, for *error*."""
    failure = describe(error)
    return undone(value) or (failure.message if is_a(error, UsageError) else f"code of the result raised {failure}")


def undone(value: object) -> str | None:
    """What is wrong with a *value* that is still to be awaited or iterated, which nobody would do; None for any other.

    A coroutine is closed, or Python would warn of it as well.
    """
    if type(value) not in _WORK:
        return None
    work = cast("Any", value)
    if type(value) is not CoroutineType:
        return (
            f"it returned the generator {work.__qualname__:.200}, and nobody would take what that yields; "
            "return a list, or send a task for each item"
        )
    if inspect.getcoroutinestate(work) == inspect.CORO_CREATED:
        work.close()
    return (
        f"it returned the coroutine {work.__qualname__:.200}, which nobody awaits; "
        "make the task, and each decorator around it, an async function, and in that write: return await ..."
    )
