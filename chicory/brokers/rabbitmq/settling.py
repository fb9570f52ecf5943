"""What becomes of deliveries: what has to be published for an outcome, and by which road it went.  Pure."""

from typing import assert_never

from chicory.brokers.base import Settlement
from chicory.brokers.rabbitmq.mail import REPLIES, Parcel, Sender
from chicory.brokers.rabbitmq.topology import Names
from chicory.delay import bounded
from chicory.outcome import Dead, Done, Failed, Release, RetryIn
from chicory.types import Failure, ResultRecord, TaskMessage, TaskState
from chicory.wire import pack_record


def road(settlement: Settlement) -> str:
    """The road that the message takes: see `brokers.base.ROADS`."""
    match settlement.outcome:
        case Done():
            return "done"
        case Failed():
            return "failed"
        case Dead():
            return "dead"
        case RetryIn():
            return "retried"
        case Release():
            return "released"
        case _:
            assert_never(settlement.outcome)


def reply(settlement: Settlement, names: Names, sender: Sender) -> Parcel | None:
    """The result as a message to whoever waits for it; None: there is no result, or nobody waits."""
    message = settlement.delivery.message
    if settlement.record is None or not isinstance(message, TaskMessage):
        return None
    return sender.reply(names, message, settlement.record) if (message.reply_to or "").startswith(REPLIES) else None


def refusal(settlement: Settlement, names: Names, sender: Sender) -> Parcel:
    """What is sent in the place of a result that is larger than the server takes."""
    message, record = settlement.delivery.message, settlement.record
    assert isinstance(message, TaskMessage)
    assert record is not None
    why = (
        f"the result has {len(record)} bytes, more than RabbitMQ takes; store the data elsewhere and return where it is"
    )
    failed = ResultRecord(TaskState.FAILURE, failure=Failure("PayloadError", why))
    return sender.reply(names, message, pack_record(failed))


def copy(settlement: Settlement, names: Names, sender: Sender, now: float) -> Parcel | None:
    """What has to be in a queue before the delivery is acknowledged; None: nothing."""
    delivery = settlement.delivery
    match settlement.outcome:
        case Done() | Failed():
            return None
        case Dead(failure):
            return sender.letter(names, delivery.message, failure, now)
        case RetryIn(delay, again, _):
            return sender.again(names, again, delay=bounded(delay))
        case Release(why, charged):
            spent = delivery.count if charged else delivery.count - 1
            return sender.again(names, delivery.message, spent=spent, cause=why if charged else delivery.cause)
        case _:
            assert_never(settlement.outcome)
