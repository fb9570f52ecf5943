"""The methods that are called on a channel, by what they do; `Channel.call` and `Channel.ask` send them."""

from collections.abc import Mapping
from typing import Any

from pamqp import base, commands

Request = base.Frame


def confirm() -> Request:
    """Have what is published on this channel confirmed."""
    return commands.Confirm.Select()


def limit(count: int, *, shared: bool) -> Request:
    """Have at most *count* deliveries outstanding, for each consumer or (*shared*) for all of the channel."""
    return commands.Basic.Qos(prefetch_count=min(count, 65_535), global_=shared)


def consume(queue: str, tag: str) -> Request:
    """Have the messages of *queue* delivered, under *tag*."""
    return commands.Basic.Consume(queue=queue, consumer_tag=tag)


def cancel(tag: str) -> Request:
    """Have nothing more delivered under *tag*."""
    return commands.Basic.Cancel(consumer_tag=tag)


def get(queue: str) -> Request:
    """Take one message, to be acknowledged.  Answered with `Got`, or None when there is none."""
    return commands.Basic.Get(queue=queue, no_ack=False)


def recover() -> Request:
    """Put what was taken on this channel and not acknowledged back where it was."""
    return commands.Basic.Recover(requeue=True)


def queue(name: str, arguments: Mapping[str, Any] | None = None, *, durable: bool, exclusive: bool = False) -> Request:
    """Declare a queue; an exclusive one ends with its connection, and nobody else can have it meanwhile."""
    return commands.Queue.Declare(queue=name, durable=durable, exclusive=exclusive, arguments=dict(arguments or {}))


def inspect(queue: str) -> Request:
    """Ask for a queue that must be there; the answer has its `message_count` and its `consumer_count`."""
    return commands.Queue.Declare(queue=queue, passive=True)


def purge(queue: str) -> Request:
    """Delete what waits in *queue*; the answer has its `message_count`."""
    return commands.Queue.Purge(queue=queue)


def delete(queue: str) -> Request:
    """Delete *queue* with all that is in it; it need not be there."""
    return commands.Queue.Delete(queue=queue)


def exchange(name: str, kind: str, *, durable: bool) -> Request:
    """Declare an exchange: a topic exchange goes by the words of routing keys, a fanout by nothing."""
    return commands.Exchange.Declare(exchange=name, exchange_type=kind, durable=durable)


def bind_queue(queue: str, source: str, pattern: str) -> Request:
    """Have *queue* get what comes to *source* under a key of *pattern*."""
    return commands.Queue.Bind(queue=queue, exchange=source, routing_key=pattern)


def bind_exchange(target: str, source: str, pattern: str) -> Request:
    """Have the exchange *target* get what comes to *source* under a key of *pattern*."""
    return commands.Exchange.Bind(destination=target, source=source, routing_key=pattern)
