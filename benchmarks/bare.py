"""The bare loop: a blocking socket, hiredis to pack and parse, and nothing else.

It does the commands that Chicory does, without leases, fences, retries or an event loop: the least that this machine,
this server and Python can do.  What Chicory costs is the difference.
"""

import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, cast

import hiredis

from chicory.ids import new_id

# Its stub allows one argument only.
_pack = cast("Callable[[tuple[Any, ...]], bytes]", hiredis.pack_command)

# The text that makes a task's body about 200 bytes long.
TEXT = "x" * 120
STREAM = "bare:stream"
GROUP = "bare"
PIPELINE = 100
_RECORD = '{"state":"success"}'
_TTL = 86400
_CHUNK = 256 * 1024
_BLOCK_MS = 5000


class Bare:
    """One connection."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._reader = hiredis.Reader()
        try:
            self._socket.connect(path)
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def call(self, *command: Any) -> Any:
        """The reply to one command."""
        return self.exchange(_pack(command), 1)[0]

    def exchange(self, request: bytes, count: int) -> list[Any]:
        """Send packed commands and take their replies."""
        self._socket.sendall(request)
        replies: list[Any] = []
        while len(replies) < count:
            # False: no whole reply is there yet.  No command sent here answers with it.
            while (reply := self._reader.gets()) is not False:
                if isinstance(reply, hiredis.ReplyError):
                    raise reply
                replies.append(reply)
            if len(replies) < count:
                data = self._socket.recv(_CHUNK)
                if not data:
                    raise ConnectionResetError("closed by the server")
                self._reader.feed(data)
        return replies


def task(name: str, *args: object) -> dict[str, Any]:
    """A task's body."""
    return {"id": new_id(), "name": name, "args": args}


def publish_pipelined(bare: Bare, messages: Sequence[dict[str, Any]]) -> None:
    """XADD, a hundred to a pipeline."""
    for start in range(0, len(messages), PIPELINE):
        batch = messages[start : start + PIPELINE]
        bare.exchange(b"".join([_pack(_xadd(message)) for message in batch]), len(batch))


def publish_singly(bare: Bare, messages: Sequence[dict[str, Any]]) -> None:
    """XADD, each answered before the next is sent."""
    for message in messages:
        bare.call(*_xadd(message))


def _xadd(message: dict[str, Any]) -> tuple[Any, ...]:
    return ("XADD", STREAM, "*", "data", json.dumps(message), "task_id", message["id"])


def make_group(bare: Bare) -> None:
    """The consumer group that `drain` and `read` read as."""
    bare.call("XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM")


def drain(bare: Bare, count: int, *, results: bool) -> float:
    """Seconds to read and finish *count* tasks that wait in the stream."""
    started = time.perf_counter()
    while count > 0:
        entries = _fetch(bare, PIPELINE)
        commands: list[tuple[Any, ...]] = []
        for _, fields in entries:
            body = json.loads(fields[1])
            if results:
                commands.append(("SET", f"bare:result:{body['id']}", _RECORD, "EX", _TTL))
        _finish(bare, [entry for entry, _ in entries], commands)
        count -= len(entries)
    return time.perf_counter() - started


def read(bare: Bare) -> Iterator[tuple[dict[str, Any], int]]:
    """Tasks as they come, one by one, each with the monotonic nanosecond at which it was there."""
    while True:
        for entry, fields in _fetch(bare, 1):
            body = json.loads(fields[1])
            yield body, time.monotonic_ns()
            _finish(bare, [entry], [("SET", f"bare:result:{body['id']}", _RECORD, "EX", _TTL)])


def _fetch(bare: Bare, count: int) -> list[Any]:
    command = ("XREADGROUP", "GROUP", GROUP, "bare", "COUNT", count, "BLOCK", _BLOCK_MS, "STREAMS", STREAM, ">")
    reply = bare.call(*command)
    return reply[0][1] if reply else []


def _finish(bare: Bare, entries: list[bytes], commands: list[tuple[Any, ...]]) -> None:
    commands += [("XACK", STREAM, GROUP, *entries), ("XDEL", STREAM, *entries)]
    bare.exchange(b"".join([_pack(command) for command in commands]), len(commands))
