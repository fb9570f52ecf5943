"""What a worker and its child processes tell each other: MessagePack, each with its length before it."""

from datetime import datetime

import msgspec

from chicory.outcome import Raised, Snoozed
from chicory.types import Progress
from chicory.worker.records import Record

# Bytes of a frame's length.
PREFIX = 4


class Call(msgspec.Struct, frozen=True):
    """Run a task: a message, as the wire has it, of a task that is known once *module* is imported with *path*.

    level: of what is worth a place in the log.
    """

    module: str
    path: list[str]
    message: bytes
    deliveries: int
    deadline: datetime | None
    level: int


class Answer(msgspec.Struct, frozen=True):
    """What became of it, one of four: what it tells the log, how far it is, the record of its value, or how else it
    ended.
    """

    record: Record | None = None
    progress: Progress | None = None
    value: bytes | None = None
    raised: Raised | None = None
    snoozed: Snoozed | None = None

    @property
    def final(self) -> bool:
        """Whether the run is over."""
        return self.record is None and self.progress is None


def frame(what: Call | Answer) -> bytes:
    """*what*, to be sent."""
    body = msgspec.msgpack.encode(what)
    return len(body).to_bytes(PREFIX, "big") + body


read_call = msgspec.msgpack.Decoder(Call).decode
read_answer = msgspec.msgpack.Decoder(Answer).decode
