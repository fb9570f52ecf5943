"""What a server says of a connection as a whole, picked out of all the bytes that come in.  Without any I/O."""

from collections.abc import Iterator

from chicory.links.amqp_frames import FRAME, KINDS, OVERHEAD, Event, FrameReader


class ControlReader:
    """Makes events of the frames on channel 0, and passes over all others unread."""

    def __init__(self) -> None:
        self._rest = b""
        # How much of the frame that is passed over is still to come.
        self._foreign = 0
        self._frames = FrameReader()

    def feed(self, data: bytes) -> Iterator[Event]:
        """Each event that is complete with *data*.  Raises BrokerUnavailable for what is not AMQP."""
        buffer = self._rest + data if self._rest else data
        at, end = self._foreign, len(buffer)
        try:
            while end - at >= OVERHEAD:
                kind, channel, size = FRAME.unpack_from(buffer, at)
                after = at + OVERHEAD + size
                if kind in KINDS and not channel and after > end:
                    break
                if not channel or kind not in KINDS:
                    yield from (event for _, event in self._frames.feed(buffer[at:after]))
                at = after
        finally:
            self._rest, self._foreign = buffer[at:], max(0, at - end)
