"""Every broker beside a model of one: whatever is asked and in whatever order, each message is in exactly one place."""

import queue
import threading
from contextlib import AsyncExitStack, suppress
from functools import partial

import attrs
import pytest
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from msgspec.structs import replace

from chicory.brokers.base import Settlement
from chicory.errors import LeaseLost
from chicory.outcome import Dead, Done, Failed, Release, RetryIn
from tests.contract.harness import OOPS, imbalance, message, receive, record, taken_back, unique_name

AN_HOUR = 3600.0


class TrioThread:
    """A trio run in a thread of its own, in which one task does one thing after another."""

    def __init__(self):
        self._asked = queue.SimpleQueue()
        self._thread = threading.Thread(target=trio.run, args=(self._serve,), daemon=True)
        self._thread.start()

    def call(self, function, *args):
        answer = queue.SimpleQueue()
        self._asked.put((function, args, answer))
        value, error = answer.get(timeout=60)
        if error is not None:
            raise error
        return value

    def end(self):
        self._asked.put(None)
        self._thread.join(20)
        assert not self._thread.is_alive()

    async def _serve(self):
        while (asked := await trio.to_thread.run_sync(self._asked.get)) is not None:
            function, args, answer = asked
            try:
                with trio.fail_after(30):
                    answer.put((await function(*args), None))
            except BaseException as error:
                answer.put((None, error))


@attrs.define
class Worker:
    """One consumer, and what it should hold: the deliveries by the id of their message."""

    consumer: object
    stack: AsyncExitStack
    held: dict = attrs.field(factory=dict)
    dead: bool = False


class AnyOrder(RuleBasedStateMachine):
    """`places` is where each message should be by its id: ready, delayed, delivered, acked, dead, done or gone."""

    def __init__(self, harness_type):
        super().__init__()
        self.thread = TrioThread()
        self.harness = harness_type()
        self.broker = self.harness.broker
        self.places = {}
        self.counts = {}
        self.workers = []
        self.settled = []  # deliveries that are over, with their workers
        self.unheard = 0  # how many were acknowledged by workers that died before they could tell the end

    def teardown(self):
        for worker in self.alive():
            self.give_back(worker)

        async def close():
            for worker in self.workers:
                await worker.stack.aclose()
            assert await imbalance(self.broker, "default") == self.unheard
            await self.broker.aclose()
            await self.harness.backend.aclose()

        self.thread.call(close)
        self.thread.end()

    def can(self, what):
        return what not in getattr(self.harness, "cannot", {})

    def among(self, *places):
        return sorted(one for one, place in self.places.items() if place in places)

    def alive(self):
        return [worker for worker in self.workers if not worker.dead]

    def holders(self):
        return [worker for worker in self.alive() if worker.held]

    def held_by(self, data):
        worker = data.draw(st.sampled_from(self.holders()))
        return worker, worker.held[data.draw(st.sampled_from(sorted(worker.held)))]

    # -- publishers

    @rule(delay=st.sampled_from([None, AN_HOUR]))
    def publish(self, delay):
        one = message()
        self.thread.call(partial(self.broker.publish, one, delay=delay))
        self.places[one.id] = "delayed" if delay else "ready"
        self.counts[one.id] = 1

    @rule(count=st.integers(0, 5))
    def publish_many(self, count):
        some = [message() for _ in range(count)]
        self.thread.call(self.broker.publish_many, some)
        for one in some:
            self.places[one.id], self.counts[one.id] = "ready", 1

    @precondition(lambda self: self.can("deduplication"))
    @precondition(lambda self: self.among("ready", "delayed", "delivered", "acked", "done"))
    @rule(data=st.data())
    def publish_what_was_published(self, data):
        known = self.among("ready", "delayed", "delivered", "acked", "done")
        self.thread.call(self.broker.publish, message(id=data.draw(st.sampled_from(known))))

    # -- workers

    @precondition(lambda self: len(self.alive()) < 3)
    @rule()
    def join(self):
        async def enter():
            stack = AsyncExitStack()
            consumer = self.broker.consumer(["default"], name=unique_name(), limit=20)
            return Worker(await stack.enter_async_context(consumer), stack)

        self.workers.append(self.thread.call(enter))

    @precondition(lambda self: self.alive())
    @rule(data=st.data())
    def leave(self, data):
        worker = data.draw(st.sampled_from(self.alive()))
        self.give_back(worker)
        self.thread.call(worker.stack.aclose)
        self.workers.remove(worker)

    def give_back(self, worker):
        """What was received is the worker's own to settle; the rest goes back by itself."""
        for delivery in list(worker.held.values()):
            self.settle_as(worker, delivery, Failed(OOPS) if delivery.acked else Release("it leaves"))

    @precondition(lambda self: self.alive() and self.among("ready"))
    @rule(data=st.data())
    def receive(self, data):
        worker = data.draw(st.sampled_from(self.alive()))
        room = 20 - len(worker.held)
        if not room:
            return
        wanted = data.draw(st.integers(1, min(room, len(self.among("ready")))))
        for delivery in self.thread.call(receive, worker.consumer, wanted):
            one = delivery.message.id
            assert self.places[one] == "ready"
            if self.can("keeper"):
                assert delivery.count == self.counts[one]
            else:  # it may have been on its way to somebody who died
                assert delivery.count >= self.counts[one]
            self.places[one] = "delivered"
            worker.held[one] = delivery

    @precondition(lambda self: self.holders())
    @rule(data=st.data(), how=st.sampled_from(["done", "retry", "later", "release", "dead"]))
    def settle(self, data, how):
        worker, delivery = self.held_by(data)
        again = replace(delivery.message, retries=delivery.message.retries + 1)
        outcomes = {
            "done": Done(1),
            "retry": RetryIn(0.0, again, OOPS),
            "later": RetryIn(AN_HOUR, again, OOPS),
            "release": Release("it is to be run by another"),
            "dead": Dead(OOPS),
        }
        if delivery.acked and how not in ("done", "dead"):
            return
        self.settle_as(worker, delivery, outcomes[how])

    def settle_as(self, worker, delivery, outcome):
        one = delivery.message.id
        told = [Settlement(delivery, outcome, record(outcome))]
        assert list(self.thread.call(worker.consumer.settle, told)) == [True]
        del worker.held[one]
        self.settled.append((worker, told))
        match outcome:
            case Done():
                self.places[one] = "done"
            case Dead():
                self.places[one] = "dead"
            case Failed():
                self.places[one] = "gone"
            case Release():
                self.places[one] = "ready"
            case RetryIn(delay):
                self.places[one], self.counts[one] = "delayed", 1
                if not delay:
                    self.promote()
                    self.places[one] = "ready"

    @precondition(lambda self: self.settled)
    @rule(data=st.data())
    def settle_twice(self, data):
        worker, told = data.draw(st.sampled_from(self.settled))
        if worker in self.alive() and not told[0].delivery.acked:
            assert list(self.thread.call(worker.consumer.settle, told)) == [False]

    @precondition(lambda self: self.holders())
    @rule(data=st.data())
    def acknowledge(self, data):
        worker, delivery = self.held_by(data)
        if delivery.acked:
            return
        (acked,) = self.thread.call(worker.consumer.acknowledge, [delivery])
        assert acked.acked
        worker.held[delivery.message.id] = acked
        self.places[delivery.message.id] = "acked"

    # -- keepers

    @rule()
    def promote(self):
        async def promote_all():
            async with self.broker.keeper(["default"]) as keeper:
                while await keeper.promote() == 0:
                    pass

        if self.can("keeper"):
            self.thread.call(promote_all)

    @precondition(lambda self: self.alive())
    @rule(data=st.data())
    def die(self, data):
        worker = data.draw(st.sampled_from(self.alive()))
        lost = [one for one, delivery in worker.held.items() if not delivery.acked]
        if not lost:
            return  # with nothing in its hands it may not be noticed
        self.thread.call(partial(taken_back, self.broker, len(lost), dead=worker.consumer.name))
        worker.dead = True
        for one, delivery in worker.held.items():
            # At most once: nobody will ever hear how it ended.
            self.places[one] = "gone" if delivery.acked else "ready"
            self.unheard += delivery.acked
            self.counts[one] += 1
        late = [Settlement(worker.held[one], Done(2), record(Done(2))) for one in lost]
        with suppress(LeaseLost):
            assert not any(self.thread.call(worker.consumer.settle, late))

    # -- operators

    @precondition(lambda self: self.among("dead"))
    @rule(data=st.data())
    def replay(self, data):
        one = data.draw(st.sampled_from(self.among("dead")))
        assert self.thread.call(self.broker.replay_from_dlq, one)
        assert not self.thread.call(self.broker.replay_from_dlq, one)
        self.places[one], self.counts[one] = "ready", 1

    @precondition(lambda self: self.among("dead"))
    @rule(data=st.data())
    def delete(self, data):
        one = data.draw(st.sampled_from(self.among("dead")))
        assert self.thread.call(self.broker.delete_from_dlq, one)
        self.places[one] = "gone"

    @rule()
    def purge_dlq(self):
        buried = self.among("dead")
        assert self.thread.call(self.broker.purge_dlq) == len(buried)
        self.places |= dict.fromkeys(buried, "gone")

    @rule()
    def purge_queue(self):
        waiting = self.among("ready", "delayed")
        assert self.thread.call(self.broker.purge_queue) == len(waiting)
        self.places |= dict.fromkeys(waiting, "gone")

    # -- what must be true after each of them

    @invariant()
    def each_message_is_where_it_should_be(self):
        sizes = self.thread.call(self.broker.get_queue_sizes)
        places = [len(self.among(place)) for place in ("ready", "delayed", "delivered", "dead")]
        assert [sizes.ready, sizes.delayed, sizes.delivered, sizes.dead] == places

    @invariant()
    def the_dead_letters_are_those_that_should_be(self):
        letters = self.thread.call(self.broker.get_dlq_messages)
        assert sorted(letter.task_id for letter in letters) == self.among("dead")


@pytest.mark.parametrize("longer", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_broker_does_what_its_model_does(harness_type, kind, longer):
    # What RabbitMQ has sent to one worker who does not ask for it, another gets a second later.
    few = kind in ("rabbitmq", "aio-pika", "quorum")
    run_state_machine_as_test(
        lambda: AnyOrder(harness_type),
        settings=settings(
            max_examples=(400 if longer else 25) // (8 if few else 1),
            stateful_step_count=30 if few else 60,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
