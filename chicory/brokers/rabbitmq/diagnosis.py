"""What a RabbitMQ server keeps, what it may lose, and what to do about it, as far as it tells by AMQP."""

from collections.abc import Iterator

import attrs
import trio

from chicory.brokers.rabbitmq.line import Line
from chicory.config import RabbitMQBrokerConfig
from chicory.ids import new_id
from chicory.links import amqp_methods
from chicory.links.amqp_frames import Outgoing
from chicory.types import Finding, Gravity

OK, NOTICE, WARNING, ERROR = Gravity.OK, Gravity.NOTICE, Gravity.WARNING, Gravity.ERROR

# Seconds for a message to come back, where the server takes any.
_PATIENCE = 2.0
_NOBODY = "chicory.nobody"


@attrs.frozen(kw_only=True)
class Symptoms:
    """What a server shows.

    product: with its version.  blocked: why it takes no messages; empty when it does.
    exposed: whether the way to it is neither encrypted nor local.
    """

    product: str
    blocked: str = ""
    exposed: bool = False


async def ask(line: Line, timeout: float) -> Symptoms:
    """The symptoms of the server at the end of *line*."""
    connection = await line.open()
    channel = await line.channel()
    await channel.call(amqp_methods.confirm(), timeout=timeout)
    # A server says that it takes nothing only to those who try; this message has no queue to go to and comes back.
    batch = channel.publish([Outgoing("", _NOBODY, new_id(), b"", persistent=False)])
    with trio.move_on_after(_PATIENCE):
        await batch.done.wait()
    address = connection.address
    local = address.host in ("localhost", "127.0.0.1", "::1")
    return Symptoms(product=connection.product, blocked=connection.blocked, exposed=not local and address.tls is None)


def diagnose(symptoms: Symptoms, config: RabbitMQBrokerConfig) -> list[Finding]:
    """The findings, in the order in which an operator should read them.  Pure."""
    return list(_findings(symptoms, config))


def _findings(symptoms: Symptoms, config: RabbitMQBrokerConfig) -> Iterator[Finding]:
    yield Finding(OK, symptoms.product)
    if symptoms.blocked:
        text = f"it takes no messages ({symptoms.blocked}); what it has is worked on"
        yield Finding(ERROR, text, "free memory or disk space on the server; rabbitmqctl status shows the alarm")
    if not config.durable:
        text = "queues and messages are not durable: with the server they are gone"
        yield Finding(WARNING, text, "broker.rabbitmq.durable = true")
    elif config.queue_type == "quorum":
        text = "what it confirmed is on disk, on most of the queue's nodes: while most of them live nothing is lost"
        yield Finding(OK, text)
        yield Finding(NOTICE, "what is delayed is on one node, and waits while that is down")
    else:
        yield Finding(OK, "what it confirmed is on disk: neither its end nor the machine's loses a message")
        text = "its queues are on one node: while that is down, nothing is taken and nothing runs"
        yield Finding(NOTICE, text, 'broker.rabbitmq.queue_type = "quorum", where there are three nodes')
    limit = config.consumer_timeout
    yield Finding(
        NOTICE,
        f"it takes back what a worker holds for longer than its consumer_timeout, believed to be {limit:g} s",
        "rabbitmqctl eval 'application:get_env(rabbit, consumer_timeout).' tells in ms; broker.rabbitmq has it too",
    )
    if symptoms.exposed:
        text = "the way to it is not encrypted, and leaves this machine: others may read messages and the password"
        yield Finding(WARNING, text, "write amqps:// where the server speaks TLS")
