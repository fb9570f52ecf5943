"""Results as messages: each client has a queue of its own, and what its tasks come to is sent there.

Only who sent a task hears of its result, and it can be read once.
"""

from collections.abc import Collection, Mapping, Sequence

import trio

from chicory.backends.base import StoredRecord, wait_each, workers_of
from chicory.backends.rabbitmq.replies import Replies
from chicory.brokers.base import Broker
from chicory.brokers.rabbitmq.broker import RabbitMQBroker
from chicory.brokers.rabbitmq.route import Route
from chicory.config import RabbitMQBrokerConfig
from chicory.errors import UsageError
from chicory.links.amqp_address import addresses_of
from chicory.links.amqp_paths import connector
from chicory.links.executor import CALLERS
from chicory.links.trio_thread import closed, on_trio, serves
from chicory.types import ResultRecord, TaskState, WorkerInfo


class RpcBackend:
    """See `backends.base.Backend`.  Only with a RabbitMQ broker, which sends each result where its task says.

    A process has two queues at most: one for its trio runs, which follow each other, and one for its trio thread, so
    for all callers of other libraries.  Neither hears of what the other has sent.
    """

    callers = CALLERS

    def __init__(self, config: RabbitMQBrokerConfig, *, result_ttl: int) -> None:
        timeout, heartbeat = config.connect_timeout, config.heartbeat
        self._route = Route(addresses_of(config), connector(config.data_path), timeout=timeout, heartbeat=heartbeat)
        self._config = config
        self._ttl = result_ttl
        self._broker: Broker | None = None
        # By whether they are those of the thread.
        self._kept: dict[bool, Replies] = {}

    def __repr__(self) -> str:
        return f"<RpcBackend {self._route}>"

    def joins(self, broker: Broker) -> bool:
        """See `Backend.joins`."""
        return isinstance(broker, RabbitMQBroker) and broker.route.addresses == self._route.addresses

    # -- what a joined broker asks for

    async def reply_to(self, task_ids: Sequence[str]) -> str:
        """Expect the results of these tasks; returns where they are to be sent."""
        return await self.replies.expect(task_ids)

    def forget(self, task_ids: Collection[str]) -> None:
        """These were not published after all."""
        self.replies.forget(task_ids)

    def state(self, task_id: str) -> TaskState:
        """How far the task is, as far as is known here; nothing is gone by looking."""
        return self.replies.state(task_id)

    def cancel(self, task_id: str) -> bool:
        """The task is cancelled; False when another end of it is known."""
        return self.replies.cancel(task_id)

    # -- what a client asks for

    def attend(self, broker: Broker) -> None:
        """See `Backend.attend`."""
        self._broker = broker

    async def expect(self, task_ids: Sequence[str]) -> None:
        """See `Backend.expect`."""
        raise UsageError("results are sent by rpc only where the broker is the same RabbitMQ")

    async def store(self, records: Sequence[StoredRecord]) -> None:
        """See `Backend.store`."""
        raise UsageError("results are sent by rpc only where the broker is the same RabbitMQ")

    @on_trio
    async def fetch(self, task_id: str) -> ResultRecord:
        """See `Backend.fetch`.  A finished record is given once."""
        await trio.lowlevel.checkpoint()
        return self.replies.take(task_id)

    @on_trio
    async def wait(self, task_id: str) -> ResultRecord:
        """See `Backend.wait`.  Several may wait at once, and all are told; afterwards the result is gone."""
        await trio.lowlevel.checkpoint()
        return await self.replies.wait(task_id)

    @on_trio
    async def fetch_many(self, task_ids: Sequence[str]) -> Mapping[str, ResultRecord]:
        """See `Backend.fetch_many`.  Finished records are given once."""
        return {task_id: await self.fetch(task_id) for task_id in task_ids}

    @on_trio
    async def wait_many(self, task_ids: Collection[str], count: int) -> Mapping[str, ResultRecord]:
        """See `Backend.wait_many`.  Those returned are gone afterwards."""
        return await wait_each(self.wait, task_ids, count)

    async def get_active_workers(self) -> list[WorkerInfo]:
        """See `Backend.get_active_workers`."""
        return await workers_of(self._broker)

    async def aclose(self) -> None:
        """See `Backend.aclose`.  What was not read is lost."""
        await closed(self, self._close)

    async def _close(self) -> None:
        await self.replies.aclose()

    @property
    def replies(self) -> Replies:
        """Those of whoever calls, on trio."""
        guests = serves(trio.lowlevel.current_trio_token())
        kept = self._kept.get(guests)
        if kept is None or kept.inherited:
            kept = self._kept[guests] = Replies(self._route, self._config, self._ttl)
        return kept
