"""SimBackend: a memory backend that is reached by the same lines as the broker."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from chicory.backends.base import StoredRecord
from chicory.backends.memory import MemoryBackend
from chicory.brokers.base import Broker
from chicory.testing.simulation.broker import Network


class SimBackend:
    """See Backend; it cannot be told that a run goes on, and what is not said here, *backend* does.

    joined: results are stored by the broker, in one step with settling; else by the worker, before it.
    """

    def __init__(self, network: Network, backend: MemoryBackend, *, joined: bool) -> None:
        self._network = network
        self._backend = backend
        self._joined = joined

    def joins(self, broker: Broker) -> bool:
        """See Backend."""
        return self._joined and self._backend.joins(broker)

    async def store(self, records: Sequence[StoredRecord]) -> None:
        """See Backend."""
        await self._network.line().call("store", partial(self._backend.store, records))

    def __getattr__(self, name: str) -> Any:
        if name in ("note", "reopen"):
            raise AttributeError(name)
        return getattr(self._backend, name)


class NotedBackend(SimBackend):
    """One that can."""

    async def note(self, records: Sequence[StoredRecord]) -> None:
        """See Notable."""
        await self._network.line().call("note", partial(self._backend.note, records))

    async def reopen(self, task_id: str) -> None:
        """See Notable."""
        await self._backend.reopen(task_id)
