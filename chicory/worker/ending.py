"""What an exception that ends a run means: a request of the task, or a failure."""

from typing import assert_never, final

from chicory.context import GiveUp, Request, Retry, Snooze
from chicory.groups import holds, sole
from chicory.outcome import Raised, Snoozed
from chicory.retry import RetryPolicy, retryable
from chicory.worker.failure import describe


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
    if isinstance(only, Ended):
        return only.ending
    if isinstance(only, Request):
        return _answer(only)
    return Raised(describe(error), final=holds(error, GiveUp) or not retryable(policy, error))


def asks(error: BaseException) -> bool:
    """Whether who raised *error* says by that how the task is to go on: a request, or the word of another process."""
    return isinstance(sole(error), Request | Ended) or holds(error, GiveUp)


def _answer(request: Request) -> Raised | Snoozed:
    match request:
        case Snooze():
            return Snoozed(request.delay)
        case Retry():
            return Raised(describe(request), delay=request.delay)
        case GiveUp():
            error = request.error
            # One that was never raised has no place yet.
            return Raised(describe(error.with_traceback(error.__traceback__ or request.__traceback__)), final=True)
        case _:
            assert_never(request)
