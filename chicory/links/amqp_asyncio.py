"""AMQP 0-9-1 by aio-pika, on an asyncio loop inside the trio run: one connection to RabbitMQ and its channels.

Each connection is one system task of the run, and the loop that all of aio-pika's work for it is done on lives in that
task: it ends with the connection, at the latest with the run, and with it whatever aio-pika had started.  Callers leave
their requests in the loop and wait for trio events, so one who is cancelled takes nothing of aio-pika's with him.

It is aio-pika's plain connection: `brokers.rabbitmq.line` opens another one when it broke.
"""

import asyncio
import logging
import socket
from itertools import cycle
from typing import Any

import aio_pika
import trio
from pamqp import commands
from yarl import URL

from chicory.errors import BrokerError, BrokerRefused, BrokerUnavailable
from chicory.links.amqp_address import Address
from chicory.links.amqp_asyncio_channel import Channel
from chicory.links.amqp_control import ControlReader
from chicory.links.amqp_frames import Event, Method
from chicory.links.amqp_login import connecting, connection_error, product, reason, silence
from chicory.links.stream import watch
from chicory.links.trio_loop import in_a_loop, open_loop

log = logging.getLogger("chicory.rabbitmq")

# As much as one frame holds, so that reading need not be stopped within one.
_READ_AHEAD = 256 * 1024
_FRAME_MAX = 131_072


class Connection:
    """See `amqp_port.Connection`.  Open it with `connect`."""

    def __init__(self, sock: socket.socket, address: Address, heartbeat: float) -> None:
        self.address = address
        self.product = ""
        self.frame_max = _FRAME_MAX
        self.error: BrokerError | None = None
        self.blocked = ""
        self.unblocked = trio.Event()
        self._socket = sock
        # aio-pika knows whole seconds only.
        self._heartbeat = max(1, round(heartbeat))
        self._control = ControlReader()
        self._heard = trio.current_time()
        self._channels: dict[int, Channel] = {}
        self._numbers = cycle(range(1, 2048))
        self._loop: Any = None
        self._theirs: aio_pika.Connection | None = None
        self._transport: asyncio.Transport | None = None
        self._opened = trio.Event()
        self._leaving = trio.Event()
        self._gone = trio.Event()
        self._scope = trio.CancelScope()
        self._cause: BaseException | None = None

    @property
    def closed(self) -> bool:
        """See `amqp_port.Connection.closed`."""
        return self.error is not None

    async def channel(self, *, timeout: float) -> Channel:
        """See `amqp_port.Connection.channel`."""
        if self.error is not None:
            raise self.error
        assert self._theirs is not None
        assert self._theirs.transport is not None
        # Not the lowest: where the server closed a channel, aiormq may not have said yet that it heard so.
        number = next(number for number in self._numbers if number not in self._channels)
        channel = self._channels[number] = Channel(self, number, self._loop)
        try:
            await channel.answer(channel.open(self._theirs.transport.connection), timeout=timeout)
        except BaseException:
            channel.close()
            raise
        return channel

    def forget(self, number: int) -> None:
        """See `Line.forget`."""
        self._channels.pop(number, None)

    def fail(self, error: BrokerError) -> None:
        """See `amqp_port.Connection.fail`."""
        if self.error is not None:
            return
        self.error = BrokerUnavailable(f"{self.address}: {error}") if type(error) is BrokerUnavailable else error
        for channel in list(self._channels.values()):
            channel.end(self.error)
        if self._transport is not None:
            self._transport.abort()
        self.unblocked.set()
        self._opened.set()
        self._scope.cancel()

    def close(self) -> None:
        """See `amqp_port.Connection.close`."""
        self.fail(BrokerUnavailable("the connection is closed"))

    async def aclose(self, *, timeout: float) -> None:
        """See `amqp_port.Connection.aclose`."""
        if self.error is None:
            with trio.move_on_after(timeout):
                channels = list(self._channels.values())
                for channel in channels:
                    channel.close()
                # Their last words may wait in queues of aiormq's, which its own closing would not.
                for channel in channels:
                    await channel.gone.wait()
                self._leaving.set()
                await self._gone.wait()
        self.close()

    # -- the task

    async def log_in(self, name: str) -> None:
        """Introduce ourselves as *name*, agree on limits, and open the virtual host."""
        trio.lowlevel.spawn_system_task(self._live, name, name="chicory aio-pika")
        await self._opened.wait()
        if self.error is not None:
            raise self._cause or self.error

    async def _live(self, name: str) -> None:
        try:
            async with open_loop() as loop:
                loop.set_exception_handler(self._note)
                self._loop = loop
                try:
                    with self._scope:
                        await self._converse(name)
                finally:
                    self.close()
        except Exception as error:
            self._lose(error)
        finally:
            self.close()
            self._socket.close()
            self._gone.set()

    async def _converse(self, name: str) -> None:
        try:
            theirs = self._theirs = await self._loop.run_aio_coroutine(self._open(name))
            self._opened.set()
            await self._listen()
            await self._loop.run_aio_coroutine(theirs.close())
        except Exception as error:
            self._lose(error)

    async def _listen(self) -> None:
        """Return when it is time to say goodbye.  That is said of a server that is silent by then: see `silence`."""
        while not self._leaving.is_set():
            looked = trio.current_time()
            with trio.move_on_after(self._heartbeat / 2):
                await self._leaving.wait()
            silence(trio.current_time(), self._heard, looked, self._heartbeat)

    def _lose(self, error: BaseException) -> None:
        """It has ended, because of *error*."""
        if self.error is None:
            self._cause = error
        ours = isinstance(error, BrokerError)
        self.fail(error if ours else BrokerUnavailable(f"the connection was lost ({reason(error)})"))

    def _note(self, _: object, context: dict[str, Any]) -> None:
        """Deal with what went wrong in the loop and had nobody to be told."""
        if "handle" in context:
            self._lose(context.get("exception") or RuntimeError(context["message"]))
        else:
            log.debug("aio-pika: %s", context["message"])

    # -- in the loop

    async def _open(self, name: str) -> aio_pika.Connection:
        address = self.address
        url = URL.build(
            scheme="amqps" if address.tls else "amqp",
            host=address.host,
            port=address.port,
            user=address.username,
            password=address.password.get_secret_value(),
            # aiormq makes a slash of each of these again, and of nothing else anything.
            path="/" + address.vhost.replace("/", "%2F"),
            query={"heartbeat": self._heartbeat},
        )
        theirs = aio_pika.Connection(url, client_properties={"product": "Chicory", "connection_name": name})
        theirs.kwargs["transport_factory"] = self
        await theirs.connect()
        return theirs

    async def create(self, url: URL, **_: object) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """See `aiormq.connection.TransportFactory.create`."""
        loop, tls = self._loop, self.address.tls
        reader = _OverheardReader(self, loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.create_connection(
            lambda: protocol, sock=self._socket, ssl=tls, server_hostname=url.host if tls else None
        )
        self._transport = transport
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)

    def hear(self, data: bytes) -> None:
        """Note what the server says of the connection."""
        self._heard = trio.current_time()
        try:
            for event in self._control.feed(data):
                self._take(event)
        except BrokerError as error:
            self._lose(error)

    def hear_no_more(self, error: BaseException | None) -> None:
        """The server has closed the connection, or *error* has."""
        if error is not None:
            self._lose(error)
        elif self._opened.is_set():
            self._lose(BrokerUnavailable("the connection was lost (closed by the server)"))
        else:
            self._lose(BrokerUnavailable("closed by the server during the login"))

    def _take(self, event: Event) -> None:
        match event:
            case Method(commands.Connection.Start() as start):
                self.product = product(start)
            case Method(commands.Connection.Tune(frame_max=frame_max, channel_max=channel_max)):
                self.frame_max = frame_max or _FRAME_MAX
                self._numbers = cycle(range(1, (channel_max or 65_535) + 1))
            case Method(commands.Connection.Close() as close):
                raise connection_error(close, self.address)
            case Method(commands.Connection.Blocked(reason=why)):
                self.blocked, self.unblocked = why or "it does not say why", trio.Event()
            case Method(commands.Connection.Unblocked()):
                self.blocked = ""
                self.unblocked.set()
            case _:
                pass


class _OverheardReader(asyncio.StreamReader):
    """Tells the connection what it reads: aiormq keeps to itself what a server says of the connection."""

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(limit=_READ_AHEAD, loop=loop)
        self._connection = connection

    def feed_data(self, data: Any) -> None:
        self._connection.hear(data)
        super().feed_data(data)

    def feed_eof(self) -> None:
        self._connection.hear_no_more(None)
        super().feed_eof()

    def set_exception(self, exc: Exception) -> None:
        self._connection.hear_no_more(exc)
        super().set_exception(exc)


async def connect(address: Address, *, timeout: float, heartbeat: float, name: str = "chicory") -> Connection:
    """See `amqp_port.Connect`."""
    if "%2F" in address.vhost:
        raise BrokerRefused(f"{address}: aio-pika takes %2F in the name of a virtual host for a slash; go native")
    with connecting(address, timeout) as closing:
        stream = await trio.open_tcp_stream(address.host, address.port)
        watch(stream.socket)
        sock = socket.socket(fileno=stream.socket.detach())
        sock.setblocking(False)
        connection = Connection(sock, address, heartbeat)
        closing.append(connection.close)
        await connection.log_in(name)
        return connection


def _be_quiet() -> None:
    """Have aio-pika log nothing of our connections: what goes wrong with them is told to those who wait for it."""
    for name in list(logging.Logger.manager.loggerDict):
        if name.partition(".")[0] in ("aio_pika", "aiormq"):
            logging.getLogger(name).addFilter(lambda _: not in_a_loop())


_be_quiet()
