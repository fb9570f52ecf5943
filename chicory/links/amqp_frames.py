"""AMQP 0-9-1 as bytes: what is sent, and what is received put together into events.  Without any I/O.

pamqp knows the protocol and does all that is rare.  What passes for every message (publishing, deliveries, acks and
confirms) is packed and read here: that takes 2 µs a message where objects for each frame take 30.
"""

import struct
from collections.abc import Iterator, Mapping
from struct import Struct
from typing import Any, Protocol, cast

import msgspec
from pamqp import base, commands, encode, exceptions, frame, header, heartbeat

from chicory.errors import BrokerUnavailable

_METHOD, _HEADER, _BODY, _HEARTBEAT = 1, 2, 3, 8
KINDS = frozenset([_METHOD, _HEADER, _BODY, _HEARTBEAT])
_END = 0xCE
# Type, channel and size before each payload, and the end byte after it.
FRAME = Struct(">BHI")
OVERHEAD = FRAME.size + 1

_CONTENT = Struct(">HHQH")
_DELIVERY = Struct(">QB")
_ACK = Struct(">BHIHHQBB")

_BASIC = 60
_DELIVER = b"\x00\x3c\x00\x3c"
_CONFIRM_ACK = b"\x00\x3c\x00\x50"
_CONFIRM_NACK = b"\x00\x3c\x00\x78"
_PUBLISH = b"\x00\x3c\x00\x28\x00\x00"
_MANDATORY = b"\x01"

# Which properties a content header has, by bit; only those that are written here.
_TYPE_FLAG, _HEADERS_FLAG, _MODE_FLAG, _PRIORITY_FLAG, _ID_FLAG = 1 << 15, 1 << 13, 1 << 12, 1 << 11, 1 << 7
_JSON = b"\x10application/json"
_PERSISTENT, _TRANSIENT = b"\x02", b"\x01"

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
HEARTBEAT = heartbeat.Heartbeat().marshal()

Table = Mapping[str, Any]


class Outgoing(msgspec.Struct, frozen=True):
    """A message ready to be published; *id* is how it is recognised when it comes back."""

    exchange: str
    key: str
    id: str
    body: bytes
    headers: Table | None = None
    priority: int | None = None
    persistent: bool = True


class Content(Protocol):
    """A message as it came."""

    @property
    def body(self) -> bytes: ...

    @property
    def headers(self) -> dict[str, Any]:
        """Its headers; a table that cannot be read is none."""
        ...

    @property
    def properties(self) -> commands.Basic.Properties:
        """All properties; those that cannot be read are missing."""
        ...


class PackedContent(msgspec.Struct, frozen=True):
    """See `Content`; its properties are unpacked for those who ask."""

    body: bytes
    packed: bytes

    @property
    def headers(self) -> dict[str, Any]:
        """See `Content.headers`."""
        # Most messages have none, so most headers are never unpacked.
        if len(self.packed) < 2 or not self.packed[0] & (_HEADERS_FLAG >> 8):
            return {}
        return cast("dict[str, Any]", self.properties.headers or {})

    @property
    def properties(self) -> commands.Basic.Properties:
        """See `Content.properties`."""
        unpacked = header.ContentHeader()
        try:
            unpacked.unmarshal(b"\x00\x3c\x00\x00" + bytes(8) + self.packed)
        except (ValueError, IndexError, KeyError, struct.error, exceptions.PAMQPException):
            return commands.Basic.Properties()
        return unpacked.properties


class Delivered(msgspec.Struct, frozen=True):
    """Basic.Deliver with its content."""

    consumer: str
    tag: int
    redelivered: bool
    content: Content


class Confirmed(msgspec.Struct, frozen=True):
    """Basic.Ack or Basic.Nack of what was published, up to *tag* when *multiple*."""

    tag: int
    multiple: bool
    taken: bool


class Method(msgspec.Struct, frozen=True):
    """Any other method, with its content where it has some."""

    frame: base.Frame
    content: PackedContent | None = None


class Beat(msgspec.Struct, frozen=True):
    """A heartbeat."""


Event = Delivered | Confirmed | Method | Beat


class _Partial:
    """Content under way on one channel."""

    def __init__(self, method: bytes) -> None:
        self.method = method
        self.size = -1
        self.packed = b""
        self.chunks: list[bytes] = []


class FrameReader:
    """Makes events of the bytes that come in."""

    def __init__(self) -> None:
        self._rest = b""
        self._partial: dict[int, _Partial] = {}

    def feed(self, data: bytes) -> Iterator[tuple[int, Event]]:
        """Each event that is complete with *data*, and its channel.

        Raises BrokerUnavailable for what is not AMQP.
        """
        buffer = self._rest + data if self._rest else data
        at, end = 0, len(buffer)
        try:
            while end - at >= OVERHEAD:
                kind, channel, size = FRAME.unpack_from(buffer, at)
                if kind not in KINDS:
                    raise BrokerUnavailable(_not_amqp(buffer[at : at + 8]))
                start, after = at + FRAME.size, at + OVERHEAD + size
                if after > end:
                    break
                if buffer[after - 1] != _END:
                    raise BrokerUnavailable(_not_amqp(buffer[at : at + 8]))
                try:
                    event = self._event(kind, channel, buffer[start : after - 1])
                except (struct.error, IndexError, UnicodeDecodeError) as error:
                    raise BrokerUnavailable(_not_amqp(buffer[at : at + 8])) from error
                at = after
                if event is not None:
                    yield channel, event
        finally:
            self._rest = buffer[at:]

    def _event(self, kind: int, channel: int, payload: bytes) -> Event | None:
        if kind == _METHOD:
            index = payload[:4]
            if index == _DELIVER or index in _WITH_CONTENT:
                self._partial[channel] = _Partial(payload)
                return None
            if index in (_CONFIRM_ACK, _CONFIRM_NACK):
                tag, bits = _DELIVERY.unpack_from(payload, 4)
                return Confirmed(tag, bool(bits & 1), index == _CONFIRM_ACK)
            return Method(_unpack(payload))
        if kind == _HEARTBEAT:
            return Beat()
        partial = self._partial.get(channel)
        if partial is None or kind not in (_HEADER, _BODY):
            raise BrokerUnavailable(_not_amqp(payload[:8]))
        if kind == _HEADER:
            _, _, partial.size, _ = _CONTENT.unpack_from(payload)
            partial.packed = payload[12:]
        else:
            partial.chunks.append(payload)
            partial.size -= len(payload)
        if partial.size > 0:
            return None
        del self._partial[channel]
        content = PackedContent(b"".join(partial.chunks), partial.packed)
        method = partial.method
        if method[:4] != _DELIVER:
            return Method(_unpack(method), content)
        named = 5 + method[4]
        tag, bits = _DELIVERY.unpack_from(method, named)
        return Delivered(method[5:named].decode(), tag, bool(bits & 1), content)


def _index(method: type[base.Frame]) -> bytes:
    return method.index.to_bytes(4, "big")


_WITH_CONTENT = frozenset([_index(commands.Basic.Return), _index(commands.Basic.GetOk)])


def _unpack(payload: bytes) -> base.Frame:
    try:
        method = commands.INDEX_MAPPING[int.from_bytes(payload[:4], "big")]()
        method.unmarshal(payload[4:])
    except (KeyError, ValueError, IndexError, struct.error, exceptions.PAMQPException) as error:
        raise BrokerUnavailable(_not_amqp(payload[:8])) from error
    return method


def _not_amqp(data: bytes) -> str:
    return f"what answers does not speak AMQP 0-9-1 (it says {data!r}); check host and port, and if it wants TLS"


def method_frame(method: base.Frame, channel: int) -> bytes:
    """*method* as it is sent."""
    return frame.marshal(method, channel)


def ack_frame(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Basic.Ack as it is sent."""
    return _ACK.pack(_METHOD, channel, 13, _BASIC, 80, tag, multiple, _END)


def publish_frames(message: Outgoing, channel: int, frame_max: int) -> bytes:
    """*message* as it is sent, mandatory, its body in frames of at most *frame_max* bytes.

    A header does not travel in parts, so what does not fit into one frame with it is the sender's fault: ValueError.
    """
    exchange, key = message.exchange.encode(), message.key.encode()
    method = b"".join((_PUBLISH, bytes((len(exchange),)), exchange, bytes((len(key),)), key, _MANDATORY))
    flags = _TYPE_FLAG | _MODE_FLAG | _ID_FLAG
    properties = [_JSON]
    if message.headers:
        flags |= _HEADERS_FLAG
        properties.append(encode.field_table(dict(message.headers)))
    properties.append(_PERSISTENT if message.persistent else _TRANSIENT)
    if message.priority is not None:
        flags |= _PRIORITY_FLAG
        properties.append(bytes((message.priority,)))
    named = message.id.encode()
    properties += (bytes((len(named),)), named)
    body = message.body
    head = _CONTENT.pack(_BASIC, 0, len(body), flags) + b"".join(properties)
    room = frame_max - OVERHEAD
    if len(head) > room:
        raise ValueError(f"headers of {len(head)} bytes do not fit into a frame of {frame_max}")
    parts = [_frame(_METHOD, channel, method), _frame(_HEADER, channel, head)]
    parts += [_frame(_BODY, channel, body[start : start + room]) for start in range(0, len(body), room)]
    return b"".join(parts)


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return b"".join((FRAME.pack(kind, channel, len(payload)), payload, b"\xce"))
