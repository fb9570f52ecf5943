"""The list of workers in RabbitMQ: what each wrote down lately, as long as its connection stands.

That it does tells the queue on which it hears news: that is the connection's own and ends with it, and to anybody else
the server says that it is locked.  So a worker is listed however busy it is, and one that was killed is not.
"""

import msgspec

from chicory.brokers.rabbitmq.line import Line
from chicory.brokers.rabbitmq.mail import Parcel
from chicory.brokers.rabbitmq.publisher import Publisher
from chicory.brokers.rabbitmq.topology import Lists
from chicory.brokers.rabbitmq.turn import taken
from chicory.config import RabbitMQBrokerConfig
from chicory.ids import new_id
from chicory.links import amqp_methods
from chicory.links.amqp_frames import Delivered, Outgoing
from chicory.links.amqp_port import NOT_FOUND, RESOURCE_LOCKED, ChannelError, Fate
from chicory.types import WorkerInfo

# The queue on which the worker hears news.
_HEARS = "chicory-hears"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(WorkerInfo).decode


class WorkerList:
    """The list, for all who use one broker; *line* is for turns alone, *desk* for questions."""

    def __init__(
        self, publisher: Publisher, line: Line, desk: Line, lists: Lists, config: RabbitMQBrokerConfig
    ) -> None:
        self._publisher = publisher
        self._line = line
        self._desk = desk
        self._lists = lists
        self._config = config

    async def write(self, info: WorkerInfo, hears: str) -> None:
        """Write *info* down, of a worker that hears news on the queue *hears*.  Raises BrokerUnavailable."""
        headers = {_HEARS: hears}
        said = Outgoing("", self._lists.workers.name, new_id(), _encode(info), headers, None, persistent=False)
        (fate,) = await self._publisher.land(
            await self._publisher.launch([Parcel(self._lists, said)], patient=False),
            within=self._config.connect_timeout,
        )
        if fate is Fate.RETURNED:
            self._publisher.missing([self._lists])

    async def read(self) -> list[WorkerInfo]:
        """Those whose connection stands, by name; what is over is taken off the list by the way."""
        newest: dict[str, tuple[WorkerInfo, Delivered]] = {}
        listed: list[WorkerInfo] = []
        async with taken(self._line, self._config, self._lists.workers) as turn:
            for delivered in turn.found:
                try:
                    info = _decode(delivered.content.body)
                except msgspec.DecodeError:
                    # Not one of ours.
                    turn.remove(delivered)
                    continue
                if info.name in newest:
                    turn.remove(newest[info.name][1])
                newest[info.name] = info, delivered
            for info, delivered in newest.values():
                if await self._stands(str(delivered.content.headers.get(_HEARS, ""))):
                    listed.append(info)
                else:
                    turn.remove(delivered)
        return sorted(listed, key=lambda one: one.name)

    async def _stands(self, hears: str) -> bool:
        try:
            await self._desk.call(amqp_methods.inspect(hears))
        except ChannelError as error:
            if error.code == NOT_FOUND:
                return False
            if error.code != RESOURCE_LOCKED:
                raise
        return True
