"""What a task returns that is no value but work, which nobody would do."""

import inspect
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, cast

_WORK = frozenset([CoroutineType, GeneratorType, AsyncGeneratorType])


def undone(value: object) -> str | None:
    """What is wrong with a *value* that is still to be awaited or iterated; None for any other.

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
