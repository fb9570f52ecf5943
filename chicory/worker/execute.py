"""Runs one task and says how it ended, whatever it did."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import trio

from chicory.context import GiveUp, Retry, Snooze, TaskContext
from chicory.errors import ValidationError
from chicory.outcome import Ending, Interrupted, Raised, Returned, Snoozed, TimedOut, Unrunnable
from chicory.retry import RetryPolicy, retryable
from chicory.types import Failure, TaskMessage
from chicory.worker.failure import describe
from chicory.worker.plan import Plan


# Ctrl-C must reach whoever runs the worker, not the task that happens to be running.
@trio.lowlevel.enable_ki_protection
async def execute(plan: Plan, message: TaskMessage, deliveries: int) -> Ending:
    """Run *message*.  Never raises: a failure that left here would cancel every other task of the worker."""
    timeout = plan.timeout if message.timeout is None else message.timeout
    args, kwargs = message.args, message.kwargs
    try:
        if plan.incoming is not None:
            try:
                args, kwargs = plan.incoming(args, kwargs)
            except ValidationError as error:
                return Unrunnable(Failure("ValidationError", describe(error).message))
        if timeout is None:
            if plan.elsewhere is None and not plan.takes_context:
                # The common case, without one more coroutine.
                value = await plan.function(*args, **kwargs)
            else:
                value = await _call(plan, message, args, kwargs, deliveries)
            return Returned(value) if plan.returning is None else _returned(plan.returning, message, value)
        with trio.move_on_after(timeout):
            value = await _call(plan, message, args, kwargs, deliveries)
            return Returned(value) if plan.returning is None else _returned(plan.returning, message, value)
        return TimedOut(timeout)
    except trio.TrioInternalError:
        raise
    except Snooze as request:
        return Snoozed(request.delay)
    except BaseException as error:
        return _ending(plan.policy_of(message).retry, error)


async def _call(plan: Plan, message: TaskMessage, args: Sequence[Any], kwargs: dict[str, Any], deliveries: int) -> Any:
    if plan.takes_context:
        args = (TaskContext(message, deliveries), *args)
    if plan.elsewhere is None:
        return await plan.function(*args, **kwargs)
    return await plan.elsewhere(message, args, kwargs)


def _returned(returning: Callable[[Any], Any], message: TaskMessage, value: Any) -> Ending:
    # Nobody is told, so nobody is told wrong.
    if message.ignore_result:
        return Returned(value)
    try:
        return Returned(returning(value))
    except ValidationError as error:
        # It would return the same again.
        return Raised(Failure("ValidationError", describe(error).message), final=True)


def _ending(policy: RetryPolicy, error: BaseException) -> Ending:
    # Whoever cancelled us is above: the worker.
    if trio.current_effective_deadline() == -float("inf") and _cancelled(error):
        return Interrupted("the worker stopped")
    failure = describe(error)
    if isinstance(error, trio.Cancelled):
        # From a scope that has long been left; nothing here was cancelled.
        return Raised(Failure("Cancelled", "the task raised Cancelled itself", failure.traceback))
    if isinstance(error, Retry):
        return Raised(failure, delay=error.delay)
    return Raised(failure, final=isinstance(error, GiveUp) or not retryable(policy, error))


def _cancelled(error: BaseException) -> bool:
    """Whether *error* comes of being cancelled; so does what else is in a group with Cancelled."""
    if isinstance(error, BaseExceptionGroup):
        return any(_cancelled(one) for one in cast("BaseExceptionGroup[BaseException]", error).exceptions)
    return isinstance(error, trio.Cancelled)
