"""RESP on a trio stream: one connection, one conversation at a time, pipelined.

A connection never repeats a command by itself, and a call that is given up while a reply is owed closes it: nobody
ever reads another call's answer.  What the server or the network says wrong becomes one of our errors here.
Parsing and packing are hiredis'.
"""

import contextlib
import ssl
from collections.abc import Callable, Generator, Sequence
from math import inf
from typing import Any, cast

import hiredis
import trio

from chicory.errors import BrokerError, BrokerFull, BrokerRefused, BrokerUnavailable
from chicory.links.redis_address import Address
from chicory.links.stream import Stream, open_stream

# Its stub allows one argument only.
pack_command = cast("Callable[[Sequence[str | int | float | bytes]], bytes]", hiredis.pack_command)

_CHUNK = 256 * 1024


class ServerError(BrokerError):
    """An error reply that the caller may know what to do about; *code* is its first word."""

    def __init__(self, text: str) -> None:
        self.code = text.split(" ", 1)[0]
        super().__init__(text)


_TRY_AGAIN = frozenset(
    ["LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "MISCONF", "NOREPLICAS", "UNBLOCKED"]
)
_NO_ACCESS = frozenset(["NOAUTH", "WRONGPASS", "NOPERM"])


def classify(text: str) -> BrokerError:
    """The error that an error reply stands for.

    Passing states of the server are BrokerUnavailable, a lack of rights is BrokerRefused, a lack of memory BrokerFull.
    """
    code = text.split(" ", 1)[0]
    if code in _TRY_AGAIN or "max number of clients" in text:
        return BrokerUnavailable(f"Redis says: {text}")
    if code == "OOM":
        return BrokerFull(f"Redis is out of memory ({text}); raise maxmemory or drain the queues")
    if code in _NO_ACCESS or text.startswith(("ERR invalid password", "ERR AUTH", "ERR Client sent AUTH")):
        return BrokerRefused(f"Redis refuses access ({text}); check username, password and ACL")
    return ServerError(text)


class Connection:
    """A conversation with one server.  Open it with `connect`."""

    def __init__(self, stream: Stream, address: Address) -> None:
        self._stream = stream
        self._reader = hiredis.Reader(notEnoughData=_NOTHING)
        self.address = address
        self.closed = False
        self.client_id = 0
        # Whether the server has said that it is a replica.
        self._demoted = False
        # When the answer under way is due, when the alarm looks whether it is there, and whether it went off.
        self._due = inf
        self._looks_at = inf
        self._rang = False

    async def call(self, *command: Any, timeout: float) -> Any:
        """The reply to one command.

        Raises BrokerUnavailable when none came within *timeout* seconds, and what `classify` makes of an error reply.
        """
        (reply,) = await self.exchange(pack_command(command), 1, timeout)
        if isinstance(reply, BrokerError):
            raise reply
        return reply

    async def pipeline(self, commands: Sequence[tuple[Any, ...]], *, timeout: float) -> list[Any]:
        """The replies to *commands*, sent in one go; error replies stand among them as exceptions."""
        return await self.exchange(b"".join([pack_command(command) for command in commands]), len(commands), timeout)

    async def exchange(self, request: bytes, replies: int, timeout: float) -> list[Any]:
        """Send packed commands and take their *replies*.  Any failure on the way closes the connection."""
        if self.closed:
            raise BrokerUnavailable(f"{self.address}: the connection is closed")
        self._set_alarm(timeout)
        try:
            await self._stream.send_all(request)
            answers = await self._take(replies)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, hiredis.ProtocolError) as error:
            self.close()
            if self._rang:
                raise BrokerUnavailable(f"{self.address}: no answer in {timeout:g} s") from error
            raise BrokerUnavailable(f"{self.address}: the connection was lost ({_reason(error)})") from error
        except BaseException:
            # Cancelled, or worse, with a reply on its way: the next caller must not find it.
            self.close()
            raise
        self._due = inf
        return answers

    def _set_alarm(self, timeout: float) -> None:
        """Close the connection in *timeout* seconds unless the answer is there by then.

        A cancel scope for each call would cost 9 µs of some 60; one sleeping task for all calls costs nothing.
        """
        self._due = trio.current_time() + timeout
        if self._due < self._looks_at:
            self._looks_at = self._due
            trio.lowlevel.spawn_system_task(self._alarm, self._due, name="chicory redis alarm")

    async def _alarm(self, first: float) -> None:
        looks_at = first
        while not self.closed and self._looks_at == looks_at:
            await trio.sleep_until(looks_at)
            if trio.current_time() >= self._due and not self.closed:
                self._rang = True
                self.close()
            elif self._looks_at == looks_at:
                # Nothing under way: the next call sets a new alarm.
                self._looks_at = looks_at = self._due
                if looks_at == inf:
                    return

    async def send(self, *command: Any) -> None:
        """Send a command whose reply `receive` takes."""
        await self.send_many([command])

    async def send_many(self, commands: Sequence[tuple[Any, ...]]) -> None:
        """Send commands in one go, each with a reply for `receive` to take."""
        try:
            await self._stream.send_all(b"".join([pack_command(command) for command in commands]))
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.close()
            raise BrokerUnavailable(f"{self.address}: the connection was lost ({_reason(error)})") from error
        except BaseException:
            self.close()
            raise

    async def receive(self) -> Any:
        """The next reply or message.  Giving this up takes nothing: the next call to `receive` gets it."""
        try:
            (message,) = await self._take(1)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError, hiredis.ProtocolError) as error:
            self.close()
            raise BrokerUnavailable(f"{self.address}: the connection was lost ({_reason(error)})") from error
        return message

    async def _take(self, count: int) -> list[Any]:
        taken: list[Any] = []
        while True:
            while len(taken) < count:
                reply = self._reader.gets()
                if reply is _NOTHING:
                    break
                taken.append(self._objection(reply) if isinstance(reply, hiredis.ReplyError) else reply)
            else:
                if self._demoted:
                    self.close()
                return taken
            data = await self._stream.receive_some(_CHUNK)
            if not data:
                raise ConnectionResetError("closed by the server")
            self._reader.feed(data)

    def _objection(self, reply: hiredis.ReplyError) -> BrokerError:
        """What *reply* stands for.

        A master that became a replica goes on answering on the connections it has, so whoever does not leave it never
        finds the one that took its place.
        """
        text = str(reply)
        self._demoted = self._demoted or text.startswith("READONLY")
        return classify(text)

    def close(self) -> None:
        """Close at once; nothing is sent."""
        if not self.closed:
            self.closed = True
            self._stream.close()


_NOTHING = object()


async def connect(address: Address, *, timeout: float, name: str = "chicory") -> Connection:
    """A connection that is logged in and on its database.

    Raises BrokerUnavailable when nobody answers within *timeout* seconds, BrokerRefused when access is denied.
    """
    with connecting(address, timeout) as made, trio.fail_after(timeout):
        stream = await open_stream(address.host, address.port, path=address.path, tls=address.tls)
        made.append(connection := Connection(stream, address))
        await log_in(connection, name, timeout)
        return connection


@contextlib.contextmanager
def connecting(address: Address, timeout: float) -> Generator[list[Connection]]:
    """A list for the connection that is made within: should that fail, it is closed, and the error one of ours."""
    made: list[Connection] = []
    try:
        yield made
    except BaseException as error:
        for connection in made:
            connection.close()
        if (ours := _connecting_failed(address, error, timeout)) is not None:
            raise ours from error
        raise


def _connecting_failed(address: Address, error: BaseException, timeout: float) -> BrokerError | None:
    """What it means for us that *error* came of connecting to *address*; None when it is not the network's."""
    if isinstance(error, trio.TooSlowError | TimeoutError):
        return BrokerUnavailable(f"{address}: no answer in {timeout:g} s")
    if isinstance(error, ssl.SSLError | trio.BrokenResourceError) and address.tls is not None:
        cause = error.__cause__ or error
        return BrokerUnavailable(f"{address}: no TLS here ({_reason(cause)}); check the CA and the name")
    if isinstance(error, OSError | trio.BrokenResourceError):
        return BrokerUnavailable(f"{address}: cannot connect ({_reason(error)})")
    return None


async def log_in(connection: Connection, name: str, timeout: float) -> None:
    """Authenticate, choose the database and learn the connection's id, in one round trip."""
    address = connection.address
    commands: list[tuple[Any, ...]] = []
    if address.password is not None:
        secret = address.password.get_secret_value()
        commands.append(("AUTH", address.username, secret) if address.username else ("AUTH", secret))
    if address.db:
        commands.append(("SELECT", address.db))
    commands.append(("CLIENT", "SETNAME", name))
    commands.append(("CLIENT", "ID"))
    *replies, client_id = await connection.pipeline(commands, timeout=timeout)
    for reply in (*replies, client_id):
        if isinstance(reply, ServerError) and reply.code != "ERR":
            raise BrokerRefused(f"{address}: {reply}")
        if isinstance(reply, BrokerError):
            raise reply
    connection.client_id = client_id


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
