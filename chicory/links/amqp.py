"""AMQP 0-9-1 on a trio stream: one connection to RabbitMQ and its channels.

A connection serves many callers and belongs to none of them, so two system tasks of the trio run look after it: one
reads and hands out what comes, one writes what callers left, all at once, and beats while there is nothing to write.
They end with the connection, at the latest with the run, and never raise: what goes wrong ends the connection, and
whoever waits on it is told.
"""

import time
from collections.abc import Callable
from typing import Any

import trio
from pamqp import commands

from chicory.errors import BrokerError, BrokerUnavailable
from chicory.links.amqp_address import Address
from chicory.links.amqp_channel import Channel
from chicory.links.amqp_frames import HEARTBEAT, PROTOCOL_HEADER, Event, FrameReader, Method, method_frame
from chicory.links.amqp_login import connecting, connection_error, product, reason, silence
from chicory.links.amqp_pulse import pulse
from chicory.links.stream import ThreadedStream, open_stream

_CHUNK = 256 * 1024
_CAPABILITIES = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "publisher_confirms": True,
}


class Connection:
    """See `amqp_port.Connection`.  Open it with `connect`."""

    def __init__(self, stream: ThreadedStream, address: Address) -> None:
        self.address = address
        self.product = ""
        self.frame_max = 4096
        self.error: BrokerError | None = None
        self.blocked = ""
        self.unblocked = trio.Event()
        self._stream = stream
        self._frames = FrameReader()
        self._channels: dict[int, Channel] = {}
        self._channel_max = 2047
        self.heartbeat = 0.0
        self.wrote = time.monotonic()
        self._pending: list[bytes] = []
        self._work = trio.Event()
        self._heard = 0.0
        self._closing = trio.Event()
        self._gone = trio.Event()

    @property
    def closed(self) -> bool:
        """See `amqp_port.Connection.closed`."""
        return self.error is not None

    async def channel(self, *, timeout: float) -> Channel:
        """See `amqp_port.Connection.channel`."""
        if self.error is not None:
            raise self.error
        number = next(number for number in range(1, self._channel_max + 1) if number not in self._channels)
        channel = self._channels[number] = Channel(self, number)
        await channel.call(commands.Channel.Open(), timeout=timeout)
        return channel

    def write(self, data: bytes) -> None:
        """Send *data* soon, together with what else is written until then."""
        self._pending.append(data)
        self._work.set()

    def forget(self, number: int) -> None:
        """See `Line.forget`."""
        self._channels.pop(number, None)

    def fail(self, error: BrokerError) -> None:
        """See `amqp_port.Connection.fail`."""
        if self.error is not None:
            return
        self.error = BrokerUnavailable(f"{self.address}: {error}") if type(error) is BrokerUnavailable else error
        pulse.discard(self)
        self._stream.close()
        self._work.set()
        self._closing.set()
        self.unblocked.set()
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.end(self.error)
        self._gone.set()

    def close(self) -> None:
        """See `amqp_port.Connection.close`."""
        self.fail(BrokerUnavailable("the connection is closed"))

    async def aclose(self, *, timeout: float) -> None:
        """See `amqp_port.Connection.aclose`."""
        if self.error is None:
            goodbye = commands.Connection.Close(reply_code=200, reply_text="bye", class_id=0, method_id=0)
            self.write(method_frame(goodbye, 0))
            with trio.move_on_after(timeout):
                await self._gone.wait()
        self.close()

    # -- the two tasks

    def _begin(self) -> None:
        self._heard = trio.current_time()
        pulse.add(self)
        trio.lowlevel.spawn_system_task(self._guarded, self._read, name="chicory amqp reader")
        trio.lowlevel.spawn_system_task(self._guarded, self._send, name="chicory amqp writer")

    async def _guarded(self, work: "Callable[[], Any]") -> None:
        try:
            await work()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.fail(BrokerUnavailable(f"the connection was lost ({reason(error)})"))
        except BrokerError as error:
            self.fail(error)
        finally:
            self.close()

    async def _read(self) -> None:
        while self.error is None:
            data = await self._stream.receive_some(_CHUNK)
            if not data:
                raise BrokerUnavailable("the connection was lost (closed by the server)")
            self._heard = trio.current_time()
            for number, event in self._frames.feed(data):
                if number:
                    channel = self._channels.get(number)
                    if channel is not None:
                        channel.take(event)
                else:
                    self._take(event)

    async def _send(self) -> None:
        pause = self.heartbeat / 2 if self.heartbeat else float("inf")
        while self.error is None:
            looked = trio.current_time()
            with trio.move_on_after(pause) as waiting:
                await self._work.wait()
            if self.error is not None:
                return
            if self._pending:
                data, self._pending = b"".join(self._pending), []
                self._work = trio.Event()
                self.wrote = time.monotonic()
                await self._stream.send_all(data)
            elif waiting.cancelled_caught:
                self._write_beat(looked)

    def beat(self) -> None:
        """See `amqp_pulse.Beating`."""
        if self._stream.interject(HEARTBEAT):
            self.wrote = time.monotonic()

    def _write_beat(self, looked: float) -> None:
        silence(trio.current_time(), self._heard, looked, self.heartbeat)
        self.write(HEARTBEAT)

    def _take(self, event: Event) -> None:
        match event:
            case Method(commands.Connection.Close() as close):
                raise connection_error(close, self.address)
            case Method(commands.Connection.CloseOk()):
                self.close()
            case Method(commands.Connection.Blocked(reason=reason)):
                self.blocked, self.unblocked = reason or "it does not say why", trio.Event()
            case Method(commands.Connection.Unblocked()):
                self.blocked = ""
                self.unblocked.set()
            case _:
                pass

    # -- opening

    async def log_in(self, name: str, heartbeat: float) -> None:
        """Introduce ourselves as *name*, agree on limits, and open the virtual host."""
        address = self.address
        await self._stream.send_all(PROTOCOL_HEADER)
        start = await self._expect(commands.Connection.Start)
        self.product = product(start)
        properties: dict[str, Any] = {
            "product": "Chicory",
            "connection_name": name,
            "capabilities": _CAPABILITIES,
        }
        response = f"\0{address.username}\0{address.password.get_secret_value()}"
        await self._say(commands.Connection.StartOk(properties, mechanism="PLAIN", response=response, locale="en_US"))
        tune = await self._expect(commands.Connection.Tune)
        self.frame_max = tune.frame_max or 131_072
        self._channel_max = tune.channel_max or 65_535
        wanted = max(1, round(heartbeat))
        self.heartbeat = min(wanted, tune.heartbeat) if tune.heartbeat else wanted
        await self._say(commands.Connection.TuneOk(self._channel_max, self.frame_max, int(self.heartbeat)))
        await self._say(commands.Connection.Open(address.vhost))
        await self._expect(commands.Connection.OpenOk)
        self._begin()

    async def _say(self, method: Any) -> None:
        await self._stream.send_all(method_frame(method, 0))

    async def _expect(self, kind: Any) -> Any:
        """The next method, which is to be of *kind*: until the login is over nothing comes unasked."""
        while True:
            data = await self._stream.receive_some(_CHUNK)
            if not data:
                raise BrokerUnavailable("closed by the server during the login")
            for _, event in self._frames.feed(data):
                match event:
                    case Method(commands.Connection.Close() as close):
                        raise connection_error(close, self.address)
                    case Method(frame) if isinstance(frame, kind):
                        return frame
                    case _:
                        pass


async def connect(address: Address, *, timeout: float, heartbeat: float, name: str = "chicory") -> Connection:
    """See `amqp_port.Connect`."""
    with connecting(address, timeout) as closing:
        connection = Connection(await open_stream(address.host, address.port, tls=address.tls), address)
        closing.append(connection.close)
        await connection.log_in(name, heartbeat)
        return connection
