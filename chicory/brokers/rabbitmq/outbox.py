"""What has to be in a queue before deliveries are acknowledged: sent once, however often settling is repeated."""

from collections.abc import Hashable, Mapping

from chicory.brokers.rabbitmq.mail import Parcel
from chicory.brokers.rabbitmq.publisher import Flight, Publisher
from chicory.errors import BrokerUnavailable
from chicory.links.amqp_port import Fate

# Seconds to wait for confirms in one go: what needs none must not wait longer for those that do.
_PATIENCE = 2.0


class Outbox:
    """The parcels of one consumer, each under a key of the caller's."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._flights: dict[Hashable, Flight] = {}

    async def send(self, wanted: Mapping[Hashable, Parcel], *, optional: frozenset[Hashable]) -> frozenset[Hashable]:
        """Return when all of *wanted* have arrived, or of *optional* nobody was there to take them.

        Returned are those that were not sent, since the server has said that it takes nothing so large.

        Raises BrokerUnavailable when some have not; what is on its way is waited for again in the next call, and only
        what surely has no answer coming is sent again.
        """
        takes = self._publisher.takes
        unfit = frozenset(key for key, parcel in wanted.items() if key not in self._flights and not takes(parcel))
        missing = {key: parcel for key, parcel in wanted.items() if key not in unfit}
        while missing:
            new = [key for key in missing if key not in self._flights]
            if new:
                flights = await self._publisher.launch([missing[key] for key in new], patient=False)
                self._flights.update(zip(new, flights, strict=True))
            await self._publisher.land([self._flights[key] for key in missing], within=_PATIENCE)
            under_way = [key for key in missing if not self._flights[key].batch.done.is_set()]
            if under_way:
                raise BrokerUnavailable(f"{len(under_way)} outcomes are not confirmed yet: {self._publisher.trouble}")
            fates = {key: self._flights[key].fate for key in missing}
            missing = {key: parcel for key, parcel in missing.items() if not _arrived(fates[key], key in optional)}
            for key in missing:
                del self._flights[key]
            unknown = sum(fates[key] is not Fate.RETURNED for key in missing)
            if Fate.REJECTED in fates.values():
                self._publisher.change_channel()
            if unknown:
                raise BrokerUnavailable(f"{unknown} outcomes were not confirmed: {self._publisher.trouble}")
            self._publisher.missing([parcel.names for parcel in missing.values()])
        return unfit

    def holds(self, key: Hashable) -> bool:
        """Whether something was sent under *key*, which may have arrived."""
        return key in self._flights

    def forget(self, key: Hashable) -> None:
        """Whatever was sent under *key* is no longer of interest."""
        self._flights.pop(key, None)


def _arrived(fate: Fate, optional: bool) -> bool:
    return fate is Fate.TAKEN or (optional and fate is Fate.RETURNED)
