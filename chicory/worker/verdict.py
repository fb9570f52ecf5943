"""From how a run ended to what is told the broker and the backend.  Pure."""

import msgspec

from chicory.brokers.base import Delivery, Settlement
from chicory.outcome import Dead, Done, Ending, Failed, Lost, Outcome, Policy, Raised, RetryIn, decide
from chicory.types import Failure, Progress, ResultRecord, TaskMessage, TaskState
from chicory.wire import pack_record
from chicory.worker.failure import describe


class Run(msgspec.Struct, frozen=True):
    """What the record of a task tells of its last attempt: see ResultRecord."""

    worker: str
    started_at: float | None
    progress: Progress | None


def verdict(
    delivery: Delivery, policy: Policy, ending: Ending, run: Run | None, *, now: float, draw: float
) -> Settlement:
    """What becomes of *delivery*.  *run*: for its result, unless the message wants none kept; None where none is."""
    outcome = _outcome(delivery, policy, ending, now, draw)
    message = delivery.message
    if run is None or not isinstance(message, TaskMessage) or message.ignore_result:
        return Settlement(delivery, outcome)
    try:
        return Settlement(delivery, outcome, _record(message, outcome, now, run))
    except Exception as error:
        # What a task returned cannot travel, and it would return the same again.  Any exception: a value may have code
        # of its own, and an exception that left here would end the worker.
        failed = Raised(Failure("PayloadError", describe(error).message), final=True)
        outcome = decide(message, policy, failed, count=delivery.count, now=now, draw=draw)
        return Settlement(delivery, outcome, _record(message, outcome, now, run))


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
