"""AMQP as brokers see it: connections, channels and what they answer, whichever client speaks it below."""

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any, Protocol

import attrs
import msgspec
import trio

from chicory.errors import BrokerError, BrokerRefused, BrokerUnavailable
from chicory.links.amqp_address import Address
from chicory.links.amqp_frames import Content, Delivered, Outgoing
from chicory.links.amqp_methods import Request

ACCESS_REFUSED, NOT_FOUND, RESOURCE_LOCKED, PRECONDITION_FAILED = 403, 404, 405, 406


class ChannelError(BrokerError):
    """The server closed the channel; *code* says why, in AMQP's numbers."""

    def __init__(self, code: int, text: str) -> None:
        self.code = code
        super().__init__(f"RabbitMQ says: {text}")


class Fate(Enum):
    """What became of a published message.  UNKNOWN: the line broke before the server said so."""

    TAKEN = auto()
    REJECTED = auto()
    RETURNED = auto()
    UNKNOWN = auto()


@attrs.define(eq=False)
class Batch:
    """Messages published together; *fates* are complete once *done* is set.  *error*: why some are unknown for good."""

    messages: Sequence[Outgoing]
    fates: list[Fate] = attrs.field(factory=list[Fate])
    left: int = 0
    error: BrokerError | None = None
    done: trio.Event = attrs.field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        self.left = len(self.messages)
        self.fates = [Fate.UNKNOWN] * self.left

    def settle(self, index: int, fate: Fate) -> None:
        """Note the fate of one message; one that came back stays so, although it is confirmed afterwards."""
        if self.fates[index] is not Fate.RETURNED:
            self.fates[index] = fate
        self.left -= 1
        if self.left == 0:
            self.done.set()

    def end(self, error: BrokerError) -> None:
        """What has no fate yet will have none."""
        self.error = error
        self.done.set()


class Got(msgspec.Struct, frozen=True):
    """A message that was asked for."""

    tag: int
    content: Content


@attrs.define(eq=False)
class Answer:
    """One answer that is waited for."""

    value: Any = None
    error: BrokerError | None = None
    done: trio.Event = attrs.field(factory=trio.Event)

    def give(self, value: Any) -> None:
        """It has come."""
        self.value = value
        self.done.set()

    def end(self, error: BrokerError) -> None:
        """It will not come."""
        self.error = error
        self.done.set()

    async def wait(self, timeout: float, fail: Callable[[BrokerError], None]) -> Any:
        """What was answered; after *timeout* seconds without, the connection *fail*s."""
        with trio.move_on_after(timeout) as waiting:
            await self.done.wait()
        if waiting.cancelled_caught and not self.done.is_set():
            fail(BrokerUnavailable(f"no answer in {timeout:g} s"))
        if self.error is not None:
            raise self.error
        return self.value


class Channel(Protocol):
    """One channel of a connection.  A cancelled call leaves nothing behind: its answer is still taken, and dropped.

    error, over: why it has ended, once it has.
    delivered: called with each delivery, as it is read.  cancelled: with a consumer that the server ended.
    ended: when the channel is over, by whichever side, before anybody who waits is told.
    """

    error: BrokerError | None
    over: trio.Event
    delivered: Callable[[Delivered], None]
    cancelled: Callable[[str], None]
    ended: Callable[[BrokerError], None]

    async def call(self, method: Request, *, timeout: float) -> Any:
        """The answer to *method*.

        Raises ChannelError when the server closes the channel over it, and BrokerUnavailable when there is no answer.
        """
        ...

    def ask(self, method: Request) -> Answer:
        """Send *method* and return what `answer` waits for, so that many may be under way."""
        ...

    async def answer(self, answer: Answer, *, timeout: float) -> Any:
        """Wait for what was asked."""
        ...

    async def answers(self, asked: Sequence[Answer], *, timeout: float) -> list[Any]:
        """Wait for all of *asked*: answers come in order, and a refusal ends the channel for those after it."""
        ...

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        """Acknowledge the delivery *tag*, or all up to it."""
        ...

    def publish(self, messages: Sequence[Outgoing]) -> Batch:
        """Send *messages*, where confirms were asked for; the batch learns their fates.

        Raises PayloadError for what does not fit, before any is sent.
        """
        ...

    def close(self) -> None:
        """Close the channel; the server takes back what it delivered on it and was not acknowledged."""
        ...


class Connection(Protocol):
    """A conversation with one server.

    product: what it is, with its version.
    blocked: why the server takes no messages now, "" while it does.  unblocked: the event of the next change.
    """

    address: Address
    product: str
    error: BrokerError | None
    blocked: str
    unblocked: trio.Event

    @property
    def closed(self) -> bool:
        """Whether it is over."""
        ...

    async def channel(self, *, timeout: float) -> Channel:
        """A new channel of this connection."""
        ...

    def fail(self, error: BrokerError) -> None:
        """End it at once, because of *error*."""
        ...

    def close(self) -> None:
        """Close at once; nothing more is sent."""
        ...

    async def aclose(self, *, timeout: float) -> None:
        """Send what is left, say goodbye, and close."""
        ...


class Connect(Protocol):
    """How a connection is opened."""

    async def __call__(self, address: Address, *, timeout: float, heartbeat: float, name: str) -> Connection:
        """A connection that is logged in and in its virtual host.

        heartbeat: seconds without a sign of life, twice over, after which either side takes the other for gone.
        Raises BrokerUnavailable when nobody answers within *timeout* seconds, BrokerRefused when access is denied.
        """
        ...


def channel_error(code: int, text: str) -> BrokerError:
    """Why the server closed a channel."""
    if code == ACCESS_REFUSED:
        return BrokerRefused(f"RabbitMQ refuses access ({text}); check the user's permissions")
    return ChannelError(code, text)
