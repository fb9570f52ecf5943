"""One AMQP channel: calls that are answered in order, publishing with confirms, deliveries, and how it ends.

A cancelled call leaves nothing behind: its answer is still taken, in its turn, and dropped.
"""

from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any, Protocol

import attrs
import msgspec
import trio
from pamqp import commands

from chicory.errors import BrokerError, BrokerRefused, BrokerUnavailable, PayloadError
from chicory.links.amqp_frames import (
    Confirmed,
    Content,
    Delivered,
    Event,
    Method,
    Outgoing,
    ack_frame,
    method_frame,
    publish_frames,
)
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


class Line(Protocol):
    """What a channel needs of its connection."""

    frame_max: int

    def write(self, data: bytes) -> None:
        """Send *data* soon, in order."""
        ...

    def fail(self, error: BrokerError) -> None:
        """End the connection."""
        ...

    def forget(self, number: int) -> None:
        """The channel's number is free."""
        ...


class Channel:
    """See `Connection.channel`.

    delivered: called with each delivery, as it is read.  cancelled: with a consumer that the server ended.
    ended: when the channel is over, by whichever side, before anybody who waits is told.
    """

    def __init__(self, line: Line, number: int) -> None:
        self.number = number
        self.error: BrokerError | None = None
        self.over = trio.Event()
        self.delivered: Callable[[Delivered], None] = lambda _: None
        self.cancelled: Callable[[str], None] = lambda _: None
        self.ended: Callable[[BrokerError], None] = lambda _: None
        self._line = line
        self._answers: deque[Answer] = deque()
        # By number of publishing: its batch and its place there.
        self._unconfirmed: dict[int, tuple[Batch, int]] = {}
        self._published = 0
        self._confirmed = 0

    # -- calls

    async def call(self, method: Request, *, timeout: float) -> Any:
        """The answer to *method*.

        Raises ChannelError when the server closes the channel over it, and BrokerUnavailable when there is no answer.
        """
        return await self.answer(self.ask(method), timeout=timeout)

    def ask(self, method: Request) -> Answer:
        """Send *method* and return what `answer` waits for, so that many may be under way."""
        self._check()
        answer = Answer()
        self._answers.append(answer)
        self._line.write(method_frame(method, self.number))
        return answer

    async def answer(self, answer: Answer, *, timeout: float) -> Any:
        """Wait for what was asked."""
        with trio.move_on_after(timeout) as waiting:
            await answer.done.wait()
        if waiting.cancelled_caught and not answer.done.is_set():
            self._line.fail(BrokerUnavailable(f"no answer in {timeout:g} s"))
        if answer.error is not None:
            raise answer.error
        return answer.value

    async def answers(self, asked: Sequence[Answer], *, timeout: float) -> list[Any]:
        """Wait for all of *asked*: answers come in order, and a refusal ends the channel for those after it."""
        await self.answer(asked[-1], timeout=timeout)
        return [one.value for one in asked]

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        """Acknowledge the delivery *tag*, or all up to it."""
        self._check()
        self._line.write(ack_frame(self.number, tag, multiple=multiple))

    # -- publishing

    def publish(self, messages: Sequence[Outgoing]) -> Batch:
        """Send *messages*, where confirms were asked for; the batch learns their fates.

        Raises PayloadError for what does not fit, before any is sent.
        """
        self._check()
        try:
            data = b"".join([publish_frames(message, self.number, self._line.frame_max) for message in messages])
        except ValueError as error:
            raise PayloadError(f"the message does not fit: {error}") from error
        batch = Batch(messages)
        for index in range(len(messages)):
            self._published += 1
            self._unconfirmed[self._published] = batch, index
        self._line.write(data)
        return batch

    def _confirm(self, confirmed: Confirmed) -> None:
        fate = Fate.TAKEN if confirmed.taken else Fate.REJECTED
        if confirmed.multiple:
            tags = [tag for tag in range(self._confirmed + 1, confirmed.tag + 1) if tag in self._unconfirmed]
            self._confirmed = max(self._confirmed, confirmed.tag)
        else:
            tags = [confirmed.tag] if confirmed.tag in self._unconfirmed else []
            if confirmed.tag == self._confirmed + 1:
                self._confirmed = confirmed.tag
        for tag in tags:
            batch, index = self._unconfirmed.pop(tag)
            batch.settle(index, fate)

    def _returned(self, returned: commands.Basic.Return, content: Content) -> None:
        # It comes before the confirm and without its number, so it is known by where it went and by its id.
        where = (returned.exchange or "", returned.routing_key or "", content.properties.message_id)
        for batch, index in self._unconfirmed.values():
            message = batch.messages[index]
            if (message.exchange, message.key, message.id) == where and batch.fates[index] is not Fate.RETURNED:
                batch.fates[index] = Fate.RETURNED
                return

    # -- what comes

    def take(self, event: Event) -> None:
        """Deal with what the server sent on this channel."""
        match event:
            case Delivered():
                self.delivered(event)
            case Confirmed():
                self._confirm(event)
            case Method(commands.Basic.Return() as returned, Content() as content):
                self._returned(returned, content)
            case Method(commands.Channel.Close() as close):
                if self.error is None:
                    self._line.write(method_frame(commands.Channel.CloseOk(), self.number))
                    self.end(_channel_error(close.reply_code or 0, close.reply_text or ""))
                self._line.forget(self.number)
            case Method(commands.Channel.CloseOk()):
                self._line.forget(self.number)
            case Method(commands.Basic.Cancel() as cancel):
                self.cancelled(cancel.consumer_tag or "")
            case Method(commands.Basic.GetOk(delivery_tag=int(tag)), Content() as content):
                self._answer(Got(tag, content))
            case Method(commands.Basic.GetEmpty()):
                self._answer(None)
            case Method(frame):
                self._answer(frame)
            case _:
                pass

    def _answer(self, value: Any) -> None:
        if self._answers:
            answer = self._answers.popleft()
            answer.value = value
            answer.done.set()

    def close(self) -> None:
        """Close the channel; the server takes back what it delivered on it and was not acknowledged."""
        if self.error is None:
            self._line.write(
                method_frame(
                    commands.Channel.Close(reply_code=200, reply_text="", class_id=0, method_id=0), self.number
                )
            )
            self.end(BrokerUnavailable("the channel is closed"))

    def end(self, error: BrokerError) -> None:
        """It is over: whoever waits is told, and what was published and not confirmed stays unknown."""
        if self.error is not None:
            return
        self.error = error
        self.over.set()
        self.ended(error)
        answers, self._answers = self._answers, deque()
        for answer in answers:
            answer.error = error
            answer.done.set()
        unconfirmed, self._unconfirmed = self._unconfirmed, {}
        for batch, _ in unconfirmed.values():
            batch.error = error
            batch.done.set()

    def _check(self) -> None:
        if self.error is not None:
            raise self.error


def _channel_error(code: int, text: str) -> BrokerError:
    if code == ACCESS_REFUSED:
        return BrokerRefused(f"RabbitMQ refuses access ({text}); check the user's permissions")
    return ChannelError(code, text)
