"""What the contract suite needs of a broker beyond its protocol: to be made, and to be interfered with."""

from collections import Counter
from collections.abc import Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, ClassVar, Protocol

import trio
from msgspec.structs import replace

from chicory.backends.base import Backend, StoredRecord
from chicory.brokers.base import Broker, Consumer, Delivery, Settlement, life
from chicory.ids import new_id
from chicory.outcome import Dead, Done, Failed, Outcome, Release, RetryIn
from chicory.types import Failure, ResultRecord, TaskMessage, TaskState
from chicory.wire import pack_record
from tests.rabbit import RabbitNode
from tests.servers import Server

OOPS = Failure("ValueError", "oops", "Traceback: ...")
_names = (f"host:boot:sup:slot:{number}" for number in count(1))


class Harness(Protocol):
    """One broker with its backend, alone with its queues."""

    broker: Broker
    backend: Backend
    # What its broker cannot promise, and why.
    cannot: ClassVar[dict[str, str]]

    async def inject(self, queue: str, raw: bytes) -> None:
        """Put *raw* into the queue as a foreign program would."""
        ...


class MemoryHarness:
    cannot: ClassVar[dict[str, str]] = {}

    def __init__(self, *, lease: float = 30.0, result_ttl: float = 86400, joined: bool = True, **limits: Any) -> None:
        from chicory.backends.memory import MemoryBackend
        from chicory.brokers.memory import MemoryBroker

        self.broker = MemoryBroker(lease=lease, **limits)
        self.backend = MemoryBackend(result_ttl=result_ttl)
        _join(self, joined)

    async def inject(self, queue: str, raw: bytes) -> None:
        from chicory.brokers.memory.places import Entry

        store = self.broker._store
        store.places(queue).publish(Entry(task_id="", raw=raw, turn=next(store._numbers)), None)
        store.wake()


class RedisHarness:
    cannot: ClassVar[dict[str, str]] = {}

    def __init__(
        self, server: Server, *, lease: float = 30.0, result_ttl: float = 86400, joined: bool = True, **limits: Any
    ) -> None:
        from chicory.backends.redis import RedisBackend
        from chicory.brokers.redis import RedisBroker
        from chicory.config import RedisBackendConfig, RedisBrokerConfig

        self.server = server
        self.prefix = f"t{new_id()}"
        url = limits.pop("url", server.url)
        self.broker = RedisBroker(
            RedisBrokerConfig(url=url, key_prefix=self.prefix, claim_min_idle_ms=int(lease * 1000), **limits)
        )
        self.backend = RedisBackend(RedisBackendConfig(url=url, key_prefix=self.prefix, result_ttl=int(result_ttl)))
        _join(self, joined)

    async def inject(self, queue: str, raw: bytes) -> None:
        with self.server.client() as client:
            client.xadd(f"{self.prefix}:stream:{queue}", {"data": raw, "task_id": "x"})
            # As the publisher of a foreign program is expected to keep the books too.
            client.hincrby(f"{self.prefix}:counters:{queue}", "published", 1)


class RabbitHarness:
    """RabbitMQ, with results kept elsewhere."""

    # docs/brokers.md says it to users.
    cannot: ClassVar[dict[str, str]] = {
        "keeper": "RabbitMQ itself makes due messages ready, and gives back what a closed connection held",
        "deduplication": "RabbitMQ recognises no message: an id that is published again is there twice",
        "joining": "RabbitMQ keeps no results, so none are stored in one step with settling",
        "settling what is cancelled in one step": "RabbitMQ does not look into one queue when another is acknowledged",
        "counting what is held": "RabbitMQ limits how many messages wait, whatever workers hold",
    }

    def __init__(
        self, node: RabbitNode, *, lease: float = 30.0, result_ttl: float = 86400, joined: bool = True, **limits: Any
    ) -> None:
        from chicory.backends.memory import MemoryBackend
        from chicory.brokers.rabbitmq import RabbitMQBroker
        from chicory.config import RabbitMQBrokerConfig

        if "max_stream_length" in limits:
            limits["queue_max_length"] = limits.pop("max_stream_length")
        url = limits.pop("url", None) or node.url(node.vhost())
        self.broker = RabbitMQBroker(RabbitMQBrokerConfig(url=url, **limits))
        self.backend = MemoryBackend(result_ttl=result_ttl)

    async def inject(self, queue: str, raw: bytes) -> None:
        from chicory.brokers.rabbitmq.mail import Parcel
        from chicory.links.amqp_frames import Outgoing
        from chicory.links.amqp_port import Fate

        names = self.broker._names_of(queue)
        parcel = Parcel(names, Outgoing("", names.main, "", raw))
        assert await self.broker._current_publisher().deliver([parcel]) == [Fate.TAKEN]
        self.broker._books.note(queue, "published")


class QuorumHarness(RabbitHarness):
    """RabbitMQ with quorum queues."""

    cannot: ClassVar[dict[str, str]] = {
        **RabbitHarness.cannot,
        "priorities": "quorum queues have no priorities; asking for them is refused",
        "an exact limit": "quorum queues take a little more than their limit",
    }

    def __init__(self, node: RabbitNode, **settings: Any) -> None:
        super().__init__(node, queue_type="quorum", **settings)


class AioPikaHarness(RabbitHarness):
    """RabbitMQ, spoken to by aio-pika."""

    def __init__(self, node: RabbitNode, **settings: Any) -> None:
        super().__init__(node, data_path="aio-pika", **settings)


class Apart:
    """A broker whose results go elsewhere: what apps and workers do about those, done where a test talks to it."""

    def __init__(self, broker: Broker, backend: Backend) -> None:
        self._broker = broker
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    async def publish(self, message: TaskMessage, *args: Any, **kwargs: Any) -> str:
        if not message.ignore_result:
            await self._backend.expect([message.id])
        return await self._broker.publish(message, *args, **kwargs)

    @asynccontextmanager
    async def consumer(self, *args: Any, **kwargs: Any):
        async with self._broker.consumer(*args, **kwargs) as consumer:
            yield ApartConsumer(consumer, self._backend)

    async def cancel(self, task_id: str) -> bool:
        cancelled = await self._broker.cancel(task_id)
        await self._backend.store([StoredRecord(task_id, record(Failed(OOPS, TaskState.CANCELLED)))])
        return cancelled


class ApartConsumer:
    def __init__(self, consumer: Consumer, backend: Backend) -> None:
        self._consumer = consumer
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        records = [StoredRecord(one.delivery.message.id, one.record) for one in settlements if one.record is not None]
        if records:
            await self._backend.store(records)
        return await self._consumer.settle([replace(one, record=None) for one in settlements])


class ClusterHarness(RedisHarness):
    """A Redis that is a cluster, of one node: it takes no script or command whose keys are in several slots."""

    cannot: ClassVar[dict[str, str]] = {
        "joining": "in a cluster results are in other slots than the queues of their tasks",
        "settling what is cancelled in one step": "in a cluster the list is in another slot than the queue",
    }

    def __init__(self, server: Server, **settings: Any) -> None:
        super().__init__(server, **{**settings, "joined": False, "cluster": True})
        self.broker = Apart(self.broker, self.backend)


class SqlHarness:
    """A memory broker beside a database."""

    cannot: ClassVar[dict[str, str]] = {}

    def __init__(self, url: str, *, result_ttl: float = 86400, joined: bool = True) -> None:
        from chicory.backends.sql import SqlBackend
        from chicory.brokers.memory import MemoryBroker
        from chicory.config import SqlBackendConfig

        self.backend = SqlBackend(
            SqlBackendConfig(url=url, table_prefix=f"t{new_id()}", result_ttl=int(result_ttl), pool_size=2)
        )
        broker = MemoryBroker()
        self.broker = Apart(broker, self.backend) if joined else broker
        assert not self.backend.joins(broker)


def _join(harness: Harness, joined: bool) -> None:
    if joined:
        assert harness.backend.joins(harness.broker)
        harness.broker.join(harness.backend)


def message(name: str = "work", **fields: Any) -> TaskMessage:
    return TaskMessage(name=name, **fields)


def unique_name() -> str:
    """A consumer's name; none is ever used twice."""
    return next(_names)


@asynccontextmanager
async def worker(broker: Broker, *queues: str, limit: int = 1000, name: str = ""):
    async with broker.consumer(queues or ("default",), name=name or unique_name(), limit=limit) as consumer:
        yield consumer


async def receive(consumer: Consumer, count: int) -> list[Delivery]:
    """Exactly *count* deliveries, however many calls that takes."""
    found: list[Delivery] = []
    with trio.fail_after(10):
        while len(found) < count:
            found += await consumer.receive(count - len(found))
    return found


async def nothing_comes(consumer: Consumer, within: float = 0.1) -> bool:
    """Whether the consumer has nothing to receive; what does come is given back."""
    with trio.move_on_after(within):
        found = await consumer.receive(10)
        await settle(consumer, found, Release("unexpected"))
        return False
    return True


async def settle(consumer: Consumer, deliveries: Sequence[Delivery], outcome: Outcome) -> list[bool]:
    """Settle all with one outcome, and the record that goes with it."""
    return list(await consumer.settle([Settlement(one, outcome, record(outcome)) for one in deliveries]))


async def finish_all(broker: Broker, *queues: str, expected: int) -> list[Delivery]:
    """Receive and finish *expected* messages in a new worker; what has been given to others comes later."""
    async with worker(broker, *queues) as consumer:
        found = await receive(consumer, expected)
        assert all(await settle(consumer, found, Done(None)))
        return found


def record(outcome: Outcome) -> bytes | None:
    match outcome:
        case Done(value):
            return pack_record(ResultRecord(TaskState.SUCCESS, value=value))
        case Failed(failure, state):
            return pack_record(ResultRecord(state, failure=failure))
        case Dead(failure):
            return pack_record(ResultRecord(TaskState.DEAD_LETTERED, failure=failure))
        case RetryIn(_, message, failure):
            return pack_record(ResultRecord(TaskState.RETRY, failure=failure, retries=message.retries))
        case Release():
            return None


async def bury(broker: Broker, *messages: TaskMessage, queue: str = "default") -> None:
    """Publish and fail *messages*, one after the other, until they are dead letters."""
    async with worker(broker, queue) as consumer:
        for one in messages:
            await broker.publish(one, queue)
            assert await settle(consumer, await receive(consumer, 1), Dead(OOPS)) == [True]


async def promoted(broker: Broker, queue: str = "default") -> float | None:
    """Promote what is due; returns the seconds until the next.  Without a keeper, wait until nothing is delayed."""
    keeping = broker.keeper([queue])
    if keeping is None:
        with trio.fail_after(10):
            while (await broker.get_queue_sizes(queue)).delayed:
                await trio.sleep(0.01)
        return None
    async with keeping as keeper:
        return await keeper.promote()


async def taken_back(
    broker: Broker, count: int, *queues: str, dead: str | None = None, most: int | None = None
) -> None:
    """Reclaim until *count* deliveries have come back: a keeper may wait a lease before it trusts a silence.

    Without a keeper, *dead* loses its connections, as if it had been killed.
    """
    queues = queues or ("default",)
    keeping = broker.keeper(queues)
    if keeping is None:
        await _killed(broker, count, queues, dead, most)
        return
    async with keeping as keeper:
        with trio.fail_after(10):
            while True:
                got = await keeper.reclaim(dead=dead, why="it was killed" if dead else "", most=most)
                count -= got
                if count <= 0:
                    break
                if not got:
                    await trio.sleep(0.02)
    assert count == 0


async def _killed(broker: Any, count: int, queues: Sequence[str], dead: str | None, most: int | None) -> None:
    async def ready() -> int:
        return sum([(await broker.get_queue_sizes(queue)).ready for queue in queues])

    broker._most = most
    for consumer in broker._consumers:
        consumer._returns._most = most
    before = await ready() if dead else 0
    for consumer in broker._consumers:
        if dead is not None and life(consumer.name, dead):
            consumer._line.close()
    with trio.fail_after(10):
        while await ready() < before + count:
            await trio.sleep(0.01)


async def books(broker: Broker, queue: str = "default") -> Counter[str]:
    """How many messages took each road; 0 for a road that the broker does not name."""
    return Counter(await broker.counters(queue))


async def imbalance(broker: Broker, queue: str) -> int:
    """What the books of *queue* are out by; 0 when they close."""
    totals = await books(broker, queue)
    sizes = await broker.get_queue_sizes(queue)
    ended = sum(totals[road] for road in ("done", "failed", "dead", "purged", "lost"))
    return totals["published"] + totals["replayed"] - ended - sizes.ready - sizes.delayed - sizes.delivered
