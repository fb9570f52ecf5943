"""Runs one task and says how it ended, whatever it did."""

from collections.abc import Callable, Sequence
from typing import Any

import trio

from chicory.context import Report
from chicory.errors import PayloadError, ValidationError
from chicory.groups import holds, is_a
from chicory.middleware import around
from chicory.outcome import Ending, Interrupted, Raised, Returned, TimedOut, Unrunnable
from chicory.retry import RetryPolicy
from chicory.types import Failure, TaskMessage
from chicory.worker.ending import asks, ending_of
from chicory.worker.failure import describe
from chicory.worker.flavors import Elsewhere
from chicory.worker.plan import Plan
from chicory.worker.unfit import unfit


# Ctrl-C must reach whoever runs the worker, not the task that happens to be running.
@trio.lowlevel.enable_ki_protection
async def execute(plan: Plan, message: TaskMessage, deliveries: int, progress: Report) -> Ending:
    """Run *message*.  Never raises: a failure that left here would cancel every other task of the worker.

    progress: hears how far the task says that it is.
    """
    timeout = plan.timeout if message.timeout is None else message.timeout
    args, kwargs = message.args, message.kwargs
    limit: trio.CancelScope | None = None
    try:
        if plan.prepares:
            try:
                args, kwargs = plan.prepare(message)
            except (PayloadError, ValidationError) as error:
                return Unrunnable(Failure(type(error).__name__, describe(error).message))
        if timeout is None:
            if plan.plain:
                # The common case, without one more coroutine.
                value = await plan.function(*args, **kwargs)
            else:
                value = await _call(plan, message, args, kwargs, deliveries, progress)
            return Returned(value) if plan.returning is None else _returned(plan.returning, message, value)
        with trio.move_on_after(timeout) as limit:
            value = await _call(plan, message, args, kwargs, deliveries, progress)
            if limit.cancel_called:
                # It swallowed the cancellation, or is a thread that nobody could stop.
                return TimedOut(timeout)
            return Returned(value) if plan.returning is None else _returned(plan.returning, message, value)
        return TimedOut(timeout)
    except trio.TrioInternalError:
        raise
    except BaseException as error:
        overran = timeout if limit is not None and limit.cancel_called else None
        return _ending(plan.policy_of(message).retry, error, overran)


async def _call(
    plan: Plan,
    message: TaskMessage,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    deliveries: int,
    progress: Report,
) -> Any:
    if not plan.middleware:
        return await _function(plan, plan.elsewhere, message, args, kwargs, deliveries, progress)
    # On asyncio it surrounds the function there; a thread it surrounds from here.
    there = plan.elsewhere if plan.task.flavor == "asyncio" else None

    async def innermost(given: TaskMessage) -> Any:
        same = given.args is message.args and given.kwargs is message.kwargs
        taken, named = (args, kwargs) if same else (given.args, given.kwargs)
        if plan.incoming is not None and not same:
            taken, named = plan.incoming(taken, named)
        elsewhere = plan.elsewhere if there is None else None
        return await _function(plan, elsewhere, given, taken, named, deliveries, progress)

    call = around(plan.middleware, innermost)
    return await (call(message) if there is None else there(message, call, (message,), {}))


async def _function(
    plan: Plan,
    elsewhere: Elsewhere | None,
    message: TaskMessage,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    deliveries: int,
    progress: Report,
) -> Any:
    if plan.takes_context:
        args = (plan.context(message, deliveries, progress), *args)
    if elsewhere is None:
        return await plan.function(*args, **kwargs)
    return await elsewhere(message, plan.function, args, kwargs)


def _returned(returning: Callable[[Any], Any], message: TaskMessage, value: Any) -> Ending:
    # Nobody is told, so nobody is told wrong.
    if message.ignore_result:
        return Returned(value)
    try:
        return Returned(returning(value))
    except ValidationError as error:
        # It would return the same again.
        return Raised(Failure("ValidationError", unfit(value, error)), final=True)


def _ending(policy: RetryPolicy, error: BaseException, overran: float | None) -> Ending:
    # Whoever cancelled us is above: the worker.  What else is in a group with Cancelled comes of that, too.
    if trio.current_effective_deadline() == -float("inf") and holds(error, trio.Cancelled):
        return Interrupted("the worker stopped")
    # What it asks for when its time is over holds as at any other time, but a failure comes of the cut.
    if overran is not None and not asks(error):
        return TimedOut(overran, describe(error))
    if is_a(error, trio.Cancelled):
        # From a scope that has long been left; nothing here was cancelled.
        return Raised(Failure("Cancelled", "the task raised Cancelled itself", describe(error).traceback))
    return ending_of(policy, error)
