"""A crash between every two frames: whatever had been sent by then, each message is somewhere, and not too often.

For each operation the client is killed after the first frame that it sends, after the second, and so on until there is
none left to be killed after.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack

import attrs
import pytest
import trio

from chicory.brokers.rabbitmq import RabbitMQBroker
from chicory.brokers.rabbitmq.consumer import RabbitMQConsumer
from chicory.errors import BrokerError, LeaseLost
from chicory.ids import slot_id
from chicory.outcome import Dead, Done, Failed, Release, RetryIn
from chicory.schedules.entry import Entry
from chicory.types import TaskMessage
from tests.contract.harness import OOPS, bury, message, receive, settle, worker
from tests.proxy import Proxy, open_proxy


@attrs.define
class Scene:
    """One client before one operation, whose queue is its own."""

    proxy: Proxy
    broker: RabbitMQBroker
    queue: str
    stack: AsyncExitStack
    sent: list[TaskMessage] = attrs.field(factory=list)
    consumer: RabbitMQConsumer | None = None

    def new(self, count: int) -> list[TaskMessage]:
        made = [message(queue=self.queue) for _ in range(count)]
        self.sent += made
        return made

    async def join(self, *, limit: int = 10) -> RabbitMQConsumer:
        self.consumer = await self.stack.enter_async_context(worker(self.broker, self.queue, limit=limit))
        return self.consumer


Step = Callable[[Scene], Awaitable[object]]


@attrs.frozen
class Operation:
    """What is done, and how many of each message there may be: after a crash, and when it was done.

    untouched: the numbers of messages that it has nothing to do with, and of which there is one whatever happens.
    """

    prepare: Step
    act: Step
    crashed: tuple[int, int]
    done: tuple[int, int]
    untouched: tuple[int, ...] = ()


async def nothing(scene: Scene) -> None:
    """Only so that the connections stand."""
    await scene.broker.publish(message(queue=scene.queue))
    await scene.broker.purge_queue(scene.queue)


async def ready(scene: Scene) -> None:
    await scene.broker.publish_many(scene.new(2))


async def buried(scene: Scene) -> None:
    await bury(scene.broker, *scene.new(3), queue=scene.queue)


async def held(scene: Scene) -> None:
    await ready(scene)
    await scene.join()


async def died(scene: Scene) -> None:
    """Messages that a worker of before died with."""
    await ready(scene)
    async with worker(scene.broker, scene.queue) as doomed:
        await receive(doomed, 2)
        doomed._line.close()


async def delivered_and_not_received(scene: Scene) -> None:
    await ready(scene)
    consumer = await scene.join()
    with trio.fail_after(5):
        await receive(consumer, 1)
        while consumer.waiting(scene.queue) < 1:
            await trio.sleep(0.002)


def settling(outcome: Callable[[TaskMessage], object]) -> Step:
    async def act(scene: Scene) -> None:
        found = await receive(scene.consumer, 2)
        for one in found:
            await settle(scene.consumer, [one], outcome(one.message))
        await scene.consumer.sync()

    return act


async def acknowledge(scene: Scene) -> None:
    await scene.consumer.acknowledge(await receive(scene.consumer, 2))


async def leave(scene: Scene) -> None:
    await scene.consumer.leave()


async def receive_what_came_back(scene: Scene) -> None:
    consumer = await scene.join()
    found = await receive(consumer, 2)
    assert [one.count for one in found] == [2, 2]
    # The copies may be here before the originals are acknowledged.
    with trio.fail_after(5):
        while (await scene.broker.counters(scene.queue))["reclaimed"] < 2:
            await trio.sleep(0.002)
    await consumer.sync()


async def isolate(scene: Scene) -> None:
    first, *_ = await receive(scene.consumer, 1)
    with trio.move_on_after(0):
        await scene.consumer.receive(1)
    await scene.consumer.isolate(first)


async def renew(scene: Scene) -> None:
    await receive(scene.consumer, 2)
    await scene.consumer._renewal.renew(list(scene.consumer._held.values()))


async def trim(scene: Scene) -> None:
    await scene.broker._trim(scene.queue, 1)


OPERATIONS = {
    "publish": Operation(nothing, lambda scene: scene.broker.publish(*scene.new(1)), (0, 1), (1, 1)),
    "publish many": Operation(nothing, lambda scene: scene.broker.publish_many(scene.new(3)), (0, 1), (1, 1)),
    "publish delayed": Operation(
        nothing, lambda scene: scene.broker.publish(*scene.new(1), delay=0.06), (0, 1), (1, 1)
    ),
    "done": Operation(held, settling(lambda _: Done(None)), (0, 1), (0, 0)),
    "failed": Operation(held, settling(lambda _: Failed(OOPS)), (0, 1), (0, 0)),
    "dead": Operation(held, settling(lambda _: Dead(OOPS)), (1, 2), (1, 1)),
    "retried": Operation(held, settling(lambda one: RetryIn(0, one, OOPS)), (1, 2), (1, 1)),
    "retried later": Operation(held, settling(lambda one: RetryIn(0.06, one, OOPS)), (1, 2), (1, 1)),
    "released": Operation(held, settling(lambda _: Release("stopping")), (1, 2), (1, 1)),
    "at most once": Operation(held, acknowledge, (0, 1), (0, 0)),
    "given back": Operation(delivered_and_not_received, leave, (1, 2), (1, 1)),
    "charged": Operation(died, receive_what_came_back, (1, 2), (1, 1)),
    "isolated": Operation(held, isolate, (1, 2), (1, 1)),
    "renewed": Operation(held, renew, (1, 2), (1, 1)),
    "letters listed": Operation(buried, lambda scene: scene.broker.get_dlq_messages(scene.queue), (1, 1), (1, 1)),
    "letter replayed": Operation(
        buried, lambda scene: scene.broker.replay_from_dlq(scene.sent[1].id, scene.queue), (1, 2), (1, 1), (0, 2)
    ),
    "letter deleted": Operation(
        buried, lambda scene: scene.broker.delete_from_dlq(scene.sent[1].id, scene.queue), (0, 1), (0, 0), (0, 2)
    ),
    "letters purged": Operation(buried, lambda scene: scene.broker.purge_dlq(scene.queue), (0, 1), (0, 0)),
    "letters trimmed": Operation(buried, trim, (0, 1), (0, 0), (2,)),
    "queue purged": Operation(ready, lambda scene: scene.broker.purge_queue(scene.queue), (0, 1), (0, 0)),
}


@pytest.fixture
async def proxy(rabbit_node):
    async with open_proxy(rabbit_node.address, resp=False) as opened:
        yield opened


async def crash_after(frames: int, operation: Operation, scene: Scene) -> bool:
    """Whether there was such a frame to be killed after."""
    await operation.prepare(scene)
    crashed = scene.proxy.crash_after(frames)

    async def act(scope: trio.CancelScope) -> None:
        try:
            await operation.act(scene)
        except (BrokerError, LeaseLost):
            assert crashed.is_set()
        scope.cancel()

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(act, nursery.cancel_scope)
            await crashed.wait()
            nursery.cancel_scope.cancel()
    # Whether it had come to its end or not, everything of this client ends now.
    broker = scene.broker
    consuming = [one._line for one in broker._consumers]
    for line in (
        broker._current_publisher()._line,
        broker._current_desk(),
        broker._current_register().line,
        broker._ends.current()._turns,
        *consuming,
    ):
        line.close()
    return crashed.is_set()


async def places(broker: RabbitMQBroker, queue: str, expected: Collection[str]) -> Counter[str]:
    """How many there are of each message, wherever; returns when all *expected* were found and nothing is left."""
    found = Counter(letter.task_id for letter in await broker.get_dlq_messages(queue))
    with trio.fail_after(10):
        async with worker(broker, queue) as consumer:
            while True:
                sizes = await broker.get_queue_sizes(queue)
                if sizes.ready + sizes.delayed == 0 and found.keys() >= set(expected):
                    return found
                with trio.move_on_after(0.05):
                    deliveries = await consumer.receive(10)
                    found.update(one.message.id for one in deliveries)
                    await settle(consumer, deliveries, Done(None))
                    await consumer.sync()


# One for each way through the code; the others are like one of these.
SHORT = ("publish delayed", "dead", "retried later", "at most once", "given back", "charged", "letter replayed")


@pytest.mark.parametrize(
    "name", [name if name in SHORT else pytest.param(name, marks=pytest.mark.long) for name in OPERATIONS]
)
async def test_a_crash_after_any_frame_loses_nothing(name, brokers, proxy, rabbit_node, vhost, monkeypatch):
    monkeypatch.setattr("chicory.brokers.rabbitmq.renewal._COPY_MS", 100)
    # Each letter that is asked for is a frame.
    monkeypatch.setattr("chicory.brokers.rabbitmq.deadletters._PAGE", 4)
    operation, scenes = OPERATIONS[name], []
    direct = brokers()
    crashed = True

    while crashed:
        proxy.heal()
        async with AsyncExitStack() as stack:
            through = brokers(url=f"amqp://127.0.0.1:{proxy.address[1]}/{vhost}", publish_timeout=2.0)
            scene = Scene(proxy, through, f"q{len(scenes)}", stack)
            crashed = await crash_after(len(scenes), operation, scene)
            scenes.append((scene, operation.crashed if crashed else operation.done))
        await proxy.emptied()

    rabbit_node.await_no_connections(vhost)
    for number, (scene, bounds) in enumerate(scenes):
        wanted = [(1, 1) if index in operation.untouched else bounds for index in range(len(scene.sent))]
        certain = [one.id for one, (least, _) in zip(scene.sent, wanted, strict=True) if least]
        found = await places(direct, scene.queue, certain)
        assert found.keys() <= {one.id for one in scene.sent}
        counts = [found[one.id] for one in scene.sent]
        in_bounds = [least <= count <= most for count, (least, most) in zip(counts, wanted, strict=True)]
        assert all(in_bounds), f"after {number} of {len(scenes) - 1} frames: {counts}"
    # No operation is a single frame, so if there were fewer crashes they were not where they should have been.
    assert len(scenes) > 2


async def test_a_slot_whose_scheduler_crashes_after_any_frame_is_fired_by_the_next(brokers, proxy, vhost):
    direct, counts = brokers(), []
    crashed = True

    while crashed:
        proxy.heal()
        entry = Entry(f"s{len(counts)}", f"q{len(counts)}", "every 60 s")
        # It has come, and is not over.
        slot = (await direct.timetable().look([entry])).now + 1e-6
        what = message(queue=entry.queue, id=slot_id(entry.name, slot))
        fire = Operation(
            lambda scene: scene.broker.timetable().look([]),
            lambda scene, slot=(entry, slot, what): scene.broker.timetable().fire(*slot),
            crashed=(0, 1),
            done=(1, 1),
        )
        async with AsyncExitStack() as stack:
            through = brokers(url=f"amqp://127.0.0.1:{proxy.address[1]}/{vhost}", publish_timeout=2.0)
            crashed = await crash_after(len(counts), fire, Scene(proxy, through, entry.queue, stack))
        await proxy.emptied()

        again = await direct.timetable().fire(entry, slot, what)

        assert crashed or not again
        assert (await direct.timetable().look([], begin=False)).known[entry.name].fired == slot
        found = await places(direct, entry.queue, [what.id])
        assert found.keys() == {what.id}
        counts.append(found[what.id])

    # Twice when it came between the slot and its note, and at no other frame.
    assert counts[0] == counts[-1] == 1
    assert 1 <= counts.count(2) <= 3
    assert set(counts) == {1, 2}
