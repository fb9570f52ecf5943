"""Exceptions that come in groups, as nurseries make them of what is raised within."""

from typing import cast


def sole(error: BaseException) -> BaseException:
    """The one exception inside nested groups of one: what a driver's own nursery makes of an error."""
    match error:
        case BaseExceptionGroup(exceptions=(BaseException() as only,)):
            return sole(only)
        case _:
            return error


def holds(error: BaseException, kind: type[BaseException]) -> bool:
    """Whether *error* is one of *kind*, or a group with one in it."""
    if isinstance(error, BaseExceptionGroup):
        return any(holds(one, kind) for one in cast("BaseExceptionGroup[BaseException]", error).exceptions)
    return isinstance(error, kind)
