"""What an exception that ends a run means: a request of the task, or a failure."""

from typing import assert_never, cast, final

from chicory.context import GiveUp, Request, Retry, Snooze
from chicory.groups import holds, is_a, sole
from chicory.outcome import Raised, Snoozed
from chicory.retry import RetryPolicy, retryable
from chicory.worker.failure import describe, traceback_of


@final
class Ended(Exception):
    """A run ended in another process, where its exception stays."""

    def __init__(self, ending: Raised | Snoozed) -> None:
        self.ending = ending
        super().__init__(str(ending.failure) if isinstance(ending, Raised) else repr(ending))


def ending_of(policy: RetryPolicy, error: BaseException) -> Raised | Snoozed:
    """How a run ended that raised *error*."""
    # From a nursery it comes in a group.
    only = sole(error)
    if is_a(only, Ended):
        return only.ending
    if issubclass(type(only), Request):
        return _answer(cast("Request", only))
    return Raised(describe(error), final=holds(error, GiveUp) or not retryable(policy, error))


def asks(error: BaseException) -> bool:
    """Whether who raised *error* says by that how the task is to go on: a request, or the word of another process."""
    return issubclass(type(sole(error)), Request | Ended) or holds(error, GiveUp)


def _answer(request: Request) -> Raised | Snoozed:
    match request:
        case Snooze():
            return Snoozed(request.delay)
        case Retry():
            return Raised(describe(request), delay=request.delay)
        case GiveUp():
            error = request.error
            # One that was never raised has no place yet.
            BaseException.with_traceback(error, traceback_of(error) or request.__traceback__)
            return Raised(describe(error), final=True)
        case _:
            assert_never(request)
