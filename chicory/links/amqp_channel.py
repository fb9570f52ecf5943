"""One AMQP channel: calls that are answered in order, publishing with confirms, deliveries, and how it ends.

A cancelled call leaves nothing behind: its answer is still taken, in its turn, and dropped.
"""

from collections.abc import Sequence
from typing import Protocol

from pamqp import commands

from chicory.errors import PayloadError
from chicory.links.amqp_calls import BaseChannel, Line
from chicory.links.amqp_frames import (
    Confirmed,
    Delivered,
    Event,
    Method,
    Outgoing,
    PackedContent,
    ack_frame,
    method_frame,
    publish_frames,
)
from chicory.links.amqp_methods import Request
from chicory.links.amqp_port import Answer, Batch, Fate, Got, channel_error


class WritingLine(Line, Protocol):
    """A connection that frames are written to."""

    def write(self, data: bytes) -> None:
        """Send *data* soon, in order."""
        ...


class Channel(BaseChannel):
    """See `amqp_port.Channel`."""

    def __init__(self, line: WritingLine, number: int) -> None:
        super().__init__(line, number)
        self._write = line.write
        # By number of publishing: its batch and its place there.
        self._unconfirmed: dict[int, tuple[Batch, int]] = {}
        self._published = 0
        self._confirmed = 0

    def ask(self, method: Request) -> Answer:
        """See `amqp_port.Channel.ask`."""
        self._check()
        answer = self._expect()
        self._write(method_frame(method, self.number))
        return answer

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        """See `amqp_port.Channel.ack`."""
        self._check()
        self._write(ack_frame(self.number, tag, multiple=multiple))

    # -- publishing

    def publish(self, messages: Sequence[Outgoing]) -> Batch:
        """See `amqp_port.Channel.publish`."""
        self._check()
        try:
            data = b"".join([publish_frames(message, self.number, self._line.frame_max) for message in messages])
        except ValueError as error:
            raise PayloadError(f"the message does not fit: {error}") from error
        batch = Batch(messages)
        for index in range(len(messages)):
            self._published += 1
            self._unconfirmed[self._published] = batch, index
        self._write(data)
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

    def _returned(self, returned: commands.Basic.Return, content: PackedContent) -> None:
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
            case Method(commands.Basic.Return() as returned, PackedContent() as content):
                self._returned(returned, content)
            case Method(commands.Channel.Close() as close):
                if self.error is None:
                    self._write(method_frame(commands.Channel.CloseOk(), self.number))
                    self.end(channel_error(close.reply_code or 0, close.reply_text or ""))
                self._line.forget(self.number)
            case Method(commands.Channel.CloseOk()):
                self._line.forget(self.number)
            case Method(commands.Basic.Cancel() as cancel):
                self.cancelled(cancel.consumer_tag or "")
            case Method(commands.Basic.GetOk(delivery_tag=int(tag)), PackedContent() as content):
                self._give(Got(tag, content))
            case Method(commands.Basic.GetEmpty()):
                self._give(None)
            case Method(frame):
                self._give(frame)
            case _:
                pass

    def _say_goodbye(self) -> None:
        close = commands.Channel.Close(reply_code=200, reply_text="", class_id=0, method_id=0)
        self._write(method_frame(close, self.number))

    def _abandon(self) -> list[Batch]:
        unconfirmed, self._unconfirmed = self._unconfirmed, {}
        return [batch for batch, _ in unconfirmed.values()]
