"""A memory backend that says so where a wait could never end."""

from collections.abc import Collection, Mapping

from chicory.backends.memory import MemoryBackend
from chicory.errors import UsageError
from chicory.links.executor import TRIO, running
from chicory.testing.broker import ObservedBroker
from chicory.testing.desk import waiting
from chicory.types import ResultRecord


class ObservedBackend(MemoryBackend):
    """See MemoryBackend; *broker* is the one whose workers bring the results."""

    def __init__(self, broker: ObservedBroker, *, result_ttl: float) -> None:
        super().__init__(result_ttl=result_ttl)
        self._observed = broker

    async def wait_many(self, task_ids: Collection[str], count: int) -> Mapping[str, ResultRecord]:
        """See Backend."""
        # On trio a worker may start meanwhile, beside the caller.
        if running().name == TRIO:
            return await super().wait_many(task_ids, count)
        if not self._observed.worked:
            known = await self.fetch_many(list(task_ids))
            over = {task_id: record for task_id, record in known.items() if not record.state.awaited}
            if len(over) >= min(count, len(known)):
                return over
            left = ", ".join(known.keys() - over.keys())
            raise UsageError(
                f"{left}: waits, and nothing runs it; drain the queues first, or use memory(app, eager=True)"
            )
        with waiting():
            return await super().wait_many(task_ids, count)
