"""From how a run ended to what is told the broker and the backend.  Pure."""

import msgspec
from msgspec.structs import replace

from chicory.brokers.base import Delivery, Settlement
from chicory.outcome import Dead, Done, Ending, Failed, Lost, Outcome, Policy, Raised, RetryIn, Returned, decide
from chicory.types import Failure, Progress, ResultRecord, TaskMessage, TaskState
from chicory.wire import pack_record, unpack
from chicory.worker.unfit import undone, unfit


class Run(msgspec.Struct, frozen=True, gc=False):
    """What the record of a task tells of its last attempt: see ResultRecord."""

    worker: str
    started_at: float | None
    progress: Progress | None


def verdict(
    delivery: Delivery, policy: Policy, ending: Ending, run: Run | None, *, now: float, draw: float
) -> Settlement:
    """What becomes of *delivery*.  *run*: for its result, unless the message wants none kept; None where none is."""
    if type(ending) is not Returned:
        delivery = _as_it_came(delivery)
    outcome = _outcome(delivery, policy, ending, now, draw)
    message = delivery.message
    if run is None or not isinstance(message, TaskMessage) or message.ignore_result:
        # Nobody looks at the value, but what is left to be done in it nobody does, either.
        why = undone(outcome.value) if type(outcome) is Done else None
        return Settlement(delivery, outcome) if why is None else _unfit(delivery, policy, why, now, draw)
    try:
        return Settlement(delivery, outcome, _record(message, outcome, now, run))
    # Any exception: a value may have code of its own, and one that left here would end the worker.
    except BaseException as error:
        why = unfit(outcome.value if type(outcome) is Done else None, error)
        refused = _unfit(delivery, policy, why, now, draw)
        return replace(refused, record=_record(message, refused.outcome, now, run))


def _unfit(delivery: Delivery, policy: Policy, why: str, now: float, draw: float) -> Settlement:
    """What a task returned cannot travel, and it would return the same again."""
    delivery = _as_it_came(delivery)
    return Settlement(delivery, _outcome(delivery, policy, Raised(Failure("PayloadError", why), final=True), now, draw))


def _as_it_came(delivery: Delivery) -> Delivery:
    """*delivery* with its message as it was before the run: it is what is tried again, given back or kept."""
    message = delivery.message
    if not delivery.raw or not isinstance(message, TaskMessage):
        return delivery
    came = unpack(delivery.raw)
    assert isinstance(came, TaskMessage)
    return replace(delivery, message=replace(came, first_try=message.first_try))


def _outcome(delivery: Delivery, policy: Policy, ending: Ending, now: float, draw: float) -> Outcome:
    # The delivery that finds its message lost is not run: it is one more than the workers that died.
    count = delivery.count - 1 if isinstance(ending, Lost) else delivery.count
    return decide(delivery.message, policy, ending, count=count, now=now, draw=draw)


def _record(message: TaskMessage, outcome: Outcome, now: float, run: Run) -> bytes | None:
    match outcome:
        case Done(value):
            state, failure, retries = TaskState.SUCCESS, None, message.retries
        case Failed(failure, state):
            value, retries = None, message.retries
        case Dead(failure):
            state, value, retries = TaskState.DEAD_LETTERED, None, message.retries
        case RetryIn(_, again, failure) if failure is not None:
            state, value, retries = TaskState.RETRY, None, again.retries
        case _:
            return None
    return pack_record(ResultRecord(state, value, failure, retries, now, run.started_at, run.worker, run.progress))
