"""Messages as RabbitMQ carries them: the body is the message alone, what a queue adds stands in headers.  Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from chicory.brokers.rabbitmq.topology import Keyring, Lists, Names, wait
from chicory.ids import born, new_id
from chicory.links.amqp_frames import Content, Outgoing
from chicory.types import DLQMessage, Failure, TaskMessage, Undecodable
from chicory.wire import pack, unpack

# How often workers died with the message, and why the last did; absent is never.
DELIVERIES, CAUSE = "chicory-deliveries", "chicory-cause"
# Seconds still to wait when the levels have let go of the message.
REST = "chicory-rest"
# That a worker keeps the message for itself: elsewhere it is a sign that this worker died.
RENEWED = "chicory-renewed"
# Of a dead letter.
LETTER, FAILED_AT, ERROR, TRACEBACK = "chicory-letter", "chicory-failed-at", "chicory-error", "chicory-traceback"

# The queues of those who wait for results begin so; what else users write into reply_to is theirs.
REPLIES = "chicory.reply."

# Headers travel in one frame of 128 KiB, together.
_LONGEST_ERROR, _LONGEST_TRACEBACK = 8 * 1024, 32 * 1024
_LONGEST_CAUSE = 1024


class Parcel(msgspec.Struct, frozen=True):
    """A message on its way into a queue: how to publish it, and the highest level of delay it needs (-1: none)."""

    names: Names | Lists | Keyring
    outgoing: Outgoing
    level: int = -1


class Sender(msgspec.Struct, frozen=True):
    """How messages are written: with which priorities, and whether they are to outlive the server."""

    max_priority: int | None
    persistent: bool

    def new(self, names: Names, message: TaskMessage, delay: float) -> Parcel:
        """A message that is published: in front of it stands the limit of the queue."""
        key = names.main if delay <= 0 else names.back
        return self._parcel(names, key, message.id, pack(message), message.priority, {}, delay)

    def again(
        self, names: Names, message: TaskMessage | Undecodable, *, spent: int = 0, cause: str = "", delay: float = 0.0
    ) -> Parcel:
        """A message that was in the queue before, after *spent* workers died with it."""
        headers: dict[str, Any] = {DELIVERIES: spent, CAUSE: _clip(cause, _LONGEST_CAUSE)} if spent or cause else {}
        if isinstance(message, TaskMessage):
            return self._parcel(names, names.back, message.id, pack(message), message.priority, headers, delay)
        return self._parcel(names, names.back, "", message.raw, None, headers, delay)

    def letter(self, names: Names, message: TaskMessage | Undecodable, failure: Failure, now: float) -> Parcel:
        """A dead letter."""
        headers = {
            LETTER: new_id(),
            FAILED_AT: datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds"),
            ERROR: _clip(str(failure), _LONGEST_ERROR),
            TRACEBACK: _clip(failure.traceback, _LONGEST_TRACEBACK),
        }
        known = isinstance(message, TaskMessage)
        task_id, body = (message.id, pack(message)) if known else ("", message.raw)
        outgoing = Outgoing("", names.dead, task_id, body, headers, None, self.persistent)
        return Parcel(names, outgoing)

    def keep(self, queue: str, names: Names, content: Content, token: str) -> Parcel:
        """A message that its worker goes on holding, in *queue*, known by *token*."""
        headers = {**content.headers, RENEWED: token}
        priority = content.properties.priority
        return Parcel(names, Outgoing("", queue, token, content.body, headers, priority, self.persistent))

    def reply(self, names: Names, message: TaskMessage, record: bytes) -> Parcel:
        """A result, to whoever sent the message."""
        return Parcel(names, Outgoing("", message.reply_to or "", message.id, record, None, None, self.persistent))

    def _parcel(
        self,
        names: Names,
        key: str,
        task_id: str,
        body: bytes,
        priority: int | None,
        headers: dict[str, Any],
        delay: float,
    ) -> Parcel:
        top = self.max_priority
        level = None if top is None or priority is None else min(max(priority, 0), top)
        if delay <= 0:
            return Parcel(names, Outgoing("", key, task_id, body, headers, level, self.persistent))
        waited = wait(delay)
        if waited.rest:
            headers = {**headers, REST: f"{waited.rest:.3f}"}
        outgoing = Outgoing(names.exchange(waited.level), waited.key, task_id, body, headers, level, self.persistent)
        return Parcel(names, outgoing, waited.level)


def spent(headers: Mapping[str, Any]) -> int:
    """How often workers died with a message."""
    count = headers.get(DELIVERIES, 0)
    return count if isinstance(count, int) and count > 0 else 0


def cause(headers: Mapping[str, Any]) -> str:
    """Why the last of them did."""
    return _text(headers, CAUSE)


def rest(headers: Mapping[str, Any]) -> float:
    """Seconds that a message still has to wait."""
    try:
        return max(0.0, float(_text(headers, REST) or 0))
    except ValueError:
        return 0.0


def letter_of(queue: str, content: Content, stand_in: str) -> DLQMessage:
    """The dead letter in *content*; never raises.  *stand_in* is its id where somebody else put it there."""
    headers = content.headers
    message = unpack(content.body)
    known = message if isinstance(message, TaskMessage) else None
    letter_id = _text(headers, LETTER) or stand_in
    try:
        failed_at = datetime.fromisoformat(_text(headers, FAILED_AT))
    except ValueError:
        failed_at = datetime.fromtimestamp(born(letter_id) or 0.0, UTC)
    return DLQMessage(
        message_id=letter_id,
        original_message=message,
        failed_at=failed_at,
        error=_text(headers, ERROR),
        retry_count=known.retries if known else 0,
        queue=queue,
        task_id=known.id if known else "",
        task_name=known.name if known else "",
        traceback=_text(headers, TRACEBACK),
    )


def _text(headers: Mapping[str, Any], name: str) -> str:
    value = headers.get(name, "")
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str) else ""


def _clip(text: str, limit: int) -> str:
    """The end of *text*, where a traceback says most, in at most *limit* bytes."""
    encoded = text.encode(errors="replace")
    return text if len(encoded) <= limit else encoded[-limit:].decode(errors="ignore")
