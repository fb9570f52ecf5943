"""The way to a RabbitMQ that may have several nodes: whichever answers first, in the order in which they were named."""

from collections.abc import Sequence

from chicory.errors import BrokerError, BrokerUnavailable
from chicory.links.amqp_address import Address
from chicory.links.amqp_port import Connect, Connection


class Route:
    """One for all connections of one object, so that what one has found out spares the others.

    A node that answered is asked first the next time too, and after it those that were named after it: nobody goes back
    to a node only because it lives again.
    """

    def __init__(self, addresses: Sequence[Address], connect: Connect, *, timeout: float, heartbeat: float) -> None:
        self.addresses = tuple(addresses)
        self._connect = connect
        self._timeout = timeout
        self._heartbeat = heartbeat
        self._first = 0

    def __str__(self) -> str:
        return ", ".join(map(str, self.addresses))

    async def connect(self, name: str) -> Connection:
        """A connection to the first node that answers; each has its share of the time.

        Raises what a node said that refused, else what the last one did.
        """
        count = len(self.addresses)
        errors: list[BrokerError] = []
        for index in [(self._first + step) % count for step in range(count)]:
            address = self.addresses[index]
            try:
                found = await self._connect(
                    address, timeout=self._timeout / count, heartbeat=self._heartbeat, name=name
                )
            except BrokerError as error:
                errors.append(error)
            else:
                self._first = index
                return found
        raise next((error for error in errors if not isinstance(error, BrokerUnavailable)), errors[-1])
