"""SimBackend: a memory backend that is reached by the same lines as the broker."""

from collections.abc import Sequence
from functools import partial
from typing import Any, final

from chicory.backends.base import StoredRecord
from chicory.backends.memory import MemoryBackend
from chicory.brokers.base import Broker
from chicory.testing.simulation.broker import Network


@final
class SimBackend:
    """See Backend.  What is not said here, *backend* does.

    joined: results are stored by the broker, in one step with settling; else by the worker, before it.
    noted: it can be told that a run goes on.
    """

    def __init__(self, network: Network, backend: MemoryBackend, *, joined: bool, noted: bool) -> None:
        self._network = network
        self._backend = backend
        self._joined = joined
        self._noted = noted

    def joins(self, broker: Broker) -> bool:
        return self._joined and self._backend.joins(broker)

    async def store(self, records: Sequence[StoredRecord]) -> None:
        await self._network.line().call("store", partial(self._backend.store, records))

    async def _note(self, records: Sequence[StoredRecord]) -> None:
        await self._network.line().call("note", partial(self._backend.note, records))

    def __getattr__(self, name: str) -> Any:
        if name != "note":
            return getattr(self._backend, name)
        if not self._noted:
            raise AttributeError(name)
        return self._note
