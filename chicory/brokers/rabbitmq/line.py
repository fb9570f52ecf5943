"""One connection, opened when needed and opened again when it broke; and what has been declared on it."""

import trio

from chicory.brokers.rabbitmq.route import Route
from chicory.brokers.rabbitmq.topology import LEVELS, Binding, Declaration, Exchange, Keyring, Lists, Names, Queue
from chicory.brokers.rabbitmq.versions import declares_durable
from chicory.config import RabbitMQBrokerConfig
from chicory.errors import BrokerBlocked, BrokerRefused, BrokerUnavailable
from chicory.links import amqp_methods
from chicory.links.amqp_methods import Request
from chicory.links.amqp_port import NOT_FOUND, PRECONDITION_FAILED, Channel, ChannelError, Connection

_NOTHING = -2
_MARK_MS = 7 * 86400 * 1000


class Line:
    """A connection to RabbitMQ under *name*.  Everything it does waits at most `connect_timeout`."""

    def __init__(self, route: Route, config: RabbitMQBrokerConfig, name: str) -> None:
        self.connection: Connection | None = None
        self._route = route
        self._config = config
        self._name = name
        self._timeout = config.connect_timeout
        # By queue, the highest level of delay that was declared; -1 for none of them.
        self._declared: dict[str, int] = {}
        self._turn = trio.Lock()

    async def open(self) -> Connection:
        """The connection, which stands."""
        if self.connection is None or self.connection.closed:
            async with self._turn:
                if self.connection is None or self.connection.closed:
                    self.connection = None
                    self._declared.clear()
                    self.connection = await self._route.connect(self._name)
        return self.connection

    async def channel(self) -> Channel:
        """A new channel, the caller's own to close."""
        return await (await self.open()).channel(timeout=self._timeout)

    async def call(self, method: Request) -> object:
        """The answer to one method, on a channel of its own: a refusal ends nothing else."""
        channel = await self.channel()
        try:
            return await channel.call(method, timeout=self._timeout)
        finally:
            channel.close()

    async def length(self, channel: Channel, queue: str) -> int:
        """How many messages of *queue* no consumer has; it must be there."""
        found = await channel.call(amqp_methods.inspect(queue), timeout=self._timeout)
        return int(found.message_count)

    async def consumers(self, channel: Channel, queue: str) -> int:
        """How many consumers *queue* has; it must be there."""
        found = await channel.call(amqp_methods.inspect(queue), timeout=self._timeout)
        return int(found.consumer_count)

    # -- declaring

    def declared(self, names: Names | Lists | Keyring, level: int) -> bool:
        """Whether `ensure` has nothing to do."""
        return self._declared.get(names.queue, _NOTHING) >= level

    def forget(self) -> None:
        """Something was deleted, nobody knows what: everything is declared before its next use."""
        self._declared.clear()

    def missing(self, names: Names | Lists | Keyring) -> None:
        """Something of *names* is not there any more: it is declared before the next use."""
        self._declared.pop(names.queue, None)

    async def ensure(self, names: Names | Lists | Keyring, level: int = -1) -> None:
        """Declare what belongs to a queue, with delays up to *level*, unless that was done on this connection."""
        connection = await self.open()
        async with self._turn:
            known = self._declared.get(names.queue, _NOTHING)
            if known >= level:
                return
            # All of them at once where there may be several nodes: levels on two would not be down together, and what
            # one passed on to another that is down would be lost.
            top = LEVELS - 1 if level >= 0 and self._config.queue_type == "quorum" else level
            declarations = [*(names.basics() if known == _NOTHING else ()), *names.levels(top)]
            durable = declares_durable(connection.product, self._config.durable)
            channel = await connection.channel(timeout=self._timeout)
            try:
                await channel.answers(
                    [channel.ask(_method(one, durable)) for one in declarations], timeout=self._timeout
                )
            except ChannelError as error:
                if error.code == NOT_FOUND:
                    # Its node is down, or else it would just have been declared.
                    raise BrokerUnavailable(str(error)) from error
                if error.code != PRECONDITION_FAILED:
                    raise
                raise other_settings(names.main, error) from error
            finally:
                channel.close()
            if connection is self.connection:
                self._declared[names.queue] = top

    # -- marks

    async def mark(self, name: str) -> None:
        """Make a mark that everybody can see: a queue of that name, which goes by itself when forgotten for a week."""
        await self.call(amqp_methods.queue(name, {"x-queue-type": "classic", "x-expires": _MARK_MS}, durable=True))

    async def marked(self, name: str) -> bool:
        """Whether the mark is there."""
        try:
            await self.call(amqp_methods.inspect(name))
        except ChannelError as error:
            if error.code != NOT_FOUND:
                raise
            return False
        return True

    async def unmark(self, name: str) -> None:
        """Take the mark away."""
        await self.call(amqp_methods.delete(name))

    def close(self) -> None:
        """Close at once."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None


def _method(declaration: Declaration, durable: bool) -> Request:
    match declaration:
        case Queue(name, arguments):
            return amqp_methods.queue(name, arguments, durable=durable)
        case Exchange(name, kind):
            return amqp_methods.exchange(name, kind, durable=durable)
        case Binding(source, target, pattern, to_exchange=True):
            return amqp_methods.bind_exchange(target, source, pattern)
        case Binding(source, target, pattern):
            return amqp_methods.bind_queue(target, source, pattern)


async def taking(connection: Connection, deadline: float) -> None:
    """Wait until the server takes messages on *connection*; raises BrokerBlocked when it does not by *deadline*."""
    with trio.move_on_at(deadline) as waiting:
        while connection.blocked and not connection.closed:
            await connection.unblocked.wait()
    if waiting.cancelled_caught:
        raise BrokerBlocked(
            f"{connection.address}: RabbitMQ takes no messages ({connection.blocked}); it goes on by itself"
        )


def other_settings(queue: str, error: ChannelError) -> BrokerRefused:
    """What is said of *queue* when it cannot be declared as it should be."""
    return BrokerRefused(
        f"{queue}: it was declared with other settings ({error}); nothing was changed: set broker.rabbitmq as it was,"
        " or empty and delete that queue first"
    )
