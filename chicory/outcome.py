"""How a run ended, and what the queue should do about it.  Pure: worker and scheduler share these rules."""

from typing import Any, assert_never

import attrs
import msgspec
from msgspec.structs import replace

from chicory.errors import TaskTimeout
from chicory.retry import RetryPolicy, backoff, retryable
from chicory.types import DeliveryMode, Failure, TaskMessage, TaskState, Undecodable


class Returned(msgspec.Struct, frozen=True, gc=False):
    """The task returned *value*."""

    value: Any


class Raised(msgspec.Struct, frozen=True):
    """The task raised.  *final* failures are not retried, whatever the policy says.

    delay: seconds to wait before the retry, instead of what the policy says.
    """

    failure: Failure
    final: bool = False
    delay: float | None = None


class TimedOut(msgspec.Struct, frozen=True):
    """The run took longer than its *limit*, in seconds.

    after: what it raised once its time was over, such as an error in its clean-up.
    """

    limit: float
    after: Failure | None = None


class Abandoned(msgspec.Struct, frozen=True):
    """The run took longer than its *limit* and did not end within *grace* after it, in seconds; it may go on yet."""

    limit: float
    grace: float


class Snoozed(msgspec.Struct, frozen=True):
    """The task asked to run again after *delay* seconds; that is not a failure."""

    delay: float


class Interrupted(msgspec.Struct, frozen=True):
    """The worker stopped first; the task did nothing wrong."""

    why: str


class Lost(msgspec.Struct, frozen=True):
    """The worker that held the delivery died."""

    why: str


class Expired(msgspec.Struct, frozen=True):
    """The message came too late to be run."""

    why: str


class Cancelled(msgspec.Struct, frozen=True):
    """Somebody cancelled the task, before its run or in the middle of it."""

    why: str


class Unrunnable(msgspec.Struct, frozen=True):
    """There is nothing to run: undecodable bytes, an unknown task, arguments that do not bind or validate."""

    failure: Failure


Ending = Returned | Raised | TimedOut | Abandoned | Snoozed | Interrupted | Lost | Expired | Cancelled | Unrunnable


class Done(msgspec.Struct, frozen=True, gc=False):
    """Finished well."""

    value: Any


class Failed(msgspec.Struct, frozen=True):
    """Finished badly, and nothing is kept but the result, which says *state*."""

    failure: Failure
    state: TaskState = TaskState.FAILURE


class Dead(msgspec.Struct, frozen=True):
    """Finished badly: to the dead letters."""

    failure: Failure


class RetryIn(msgspec.Struct, frozen=True):
    """*message* is to run after *delay* seconds.

    A delay and not an instant: the broker adds it to its own clock, so no other clock matters.
    """

    delay: float
    message: TaskMessage
    failure: Failure | None


class Release(msgspec.Struct, frozen=True):
    """Back to the queue at once; *charged* says whether the delivery counts against `max_deliveries`."""

    why: str
    charged: bool = False


Outcome = Done | Failed | Dead | RetryIn | Release


@attrs.frozen(kw_only=True)
class Policy:
    """The rules a task is judged by.

    max_deliveries: how often a message may be delivered when the worker dies each time.
    dead_letters: whether a task that failed for good is kept as a dead letter; what cannot be decoded, is unknown or
        kills workers always is.
    """

    retry: RetryPolicy = attrs.field(factory=RetryPolicy)
    delivery_mode: DeliveryMode = DeliveryMode.AT_LEAST_ONCE
    max_deliveries: int = attrs.field(default=3, validator=attrs.validators.ge(1))
    dead_letters: bool = True


def afresh(message: TaskMessage) -> TaskMessage:
    """*message* as if it had never been tried."""
    return replace(message, retries=0, first_try=None)


def runs_alone(count: int, max_deliveries: int) -> bool:
    """Whether delivery number *count* (1-based) is to run with nothing else in its process.

    It is the last one, for workers died with those before; but perhaps a neighbour killed them.
    """
    return count == max_deliveries > 1


def most_shared(max_deliveries: int) -> int | None:
    """The count up to which deaths are charged that may be a neighbour's fault.

    So only a message whose worker died while it ran nothing else can be delivered too often.  None is no limit: where
    one delivery is all there is, every death counts.
    """
    return max_deliveries if max_deliveries > 1 else None


def decide(
    message: TaskMessage | Undecodable, policy: Policy, ending: Ending, *, count: int, now: float, draw: float
) -> Outcome:
    """What the queue should do with *message* now that its delivery number *count* (1-based) ended so.

    *now* is unix time by the broker's clock; *draw* is uniform in [0, 1), for the jitter of a retry.
    A message to be delivered at most once is never given back and never retried: it has been acknowledged already.
    """
    once = policy.delivery_mode is DeliveryMode.AT_MOST_ONCE
    match ending:
        case Returned(value):
            return Done(value)
        case Raised(failure, final, _) if final or once:
            return _ended(policy, failure)
        case Raised(failure, _, delay):
            return _after_failure(message, policy, failure, delay=delay, now=now, draw=draw)
        case TimedOut(limit, after):
            timeout = TaskTimeout(f"took longer than {limit:g} s" + (f", and then raised {after}" if after else ""))
            failure = Failure("TaskTimeout", str(timeout), after.traceback if after else "")
            failed = Raised(failure, final=not retryable(policy.retry, timeout))
            return decide(message, policy, failed, count=count, now=now, draw=draw)
        case Abandoned(limit, grace):
            # Never a retry: it would run beside the run that goes on.
            why = f"took longer than {limit:g} s, and had not ended {grace:g} s after; it was abandoned and went on"
            return _ended(policy, Failure("TaskTimeout", why))
        case Snoozed(delay):
            if once or isinstance(message, Undecodable):
                return _ended(policy, Failure("TaskSnoozed", "an at-most-once task cannot run again"))
            return RetryIn(delay, message, None)
        case Interrupted(why):
            return _ended(policy, Failure("TaskInterrupted", why)) if once else Release(why)
        case Lost(why):
            if count >= policy.max_deliveries:
                return Dead(Failure("WorkerLost", f"delivered {count} times, and each time its worker died: {why}"))
            return Release(why, charged=True)
        case Expired(why):
            return Failed(Failure("TaskExpired", why), TaskState.EXPIRED)
        case Cancelled(why):
            return Failed(Failure("TaskCancelled", why), TaskState.CANCELLED)
        case Unrunnable(failure):
            return Dead(failure)
        case _:
            assert_never(ending)


def _after_failure(
    message: TaskMessage | Undecodable,
    policy: Policy,
    failure: Failure,
    *,
    delay: float | None,
    now: float,
    draw: float,
) -> Outcome:
    if isinstance(message, Undecodable) or message.retries >= policy.retry.max_retries:
        return _ended(policy, failure)
    attempt = message.retries + 1
    wait = backoff(policy.retry, attempt, draw) if delay is None else delay
    budget, first = policy.retry.time_budget, message.first_try
    if budget is not None and first is not None and now + wait > first + budget:
        return _ended(policy, failure)
    return RetryIn(wait, replace(message, retries=attempt, eta=None), failure)


def _ended(policy: Policy, failure: Failure) -> Outcome:
    return Dead(failure) if policy.dead_letters else Failed(failure)
