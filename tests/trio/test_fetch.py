"""A delivery that comes by two ways is run once."""

import trio

from chicory.brokers.base import Delivery
from chicory.outage import Outage
from chicory.types import TaskMessage
from chicory.worker.fetch import Fetcher, Gate
from chicory.worker.holdings import Holdings, Tally


class Scripted:
    """A consumer whose answers a test gives out one by one."""

    def __init__(self):
        self.read_in, self.read_out = trio.open_memory_channel(10)
        self.missed_in, self.missed_out = trio.open_memory_channel(10)
        self.asked = trio.Event()

    async def receive(self, limit):
        return await self.read_out.receive()

    async def reconcile(self, held):
        self.asked.set()
        return await self.missed_out.receive()


def delivery(receipt):
    return Delivery(TaskMessage(name="x"), "default", receipt)


class Bench:
    def __init__(self):
        self.consumer = Scripted()
        self.holdings = Holdings(10, 10)
        self.run = []
        self.fetcher = Fetcher(self.consumer, self.holdings, Tally(), Outage(), accept=self.accept, lost=lambda: None)

    def accept(self):
        """Run and settle everything at once."""
        while self.holdings.waiting:
            receipt = self.holdings.waiting.popleft().receipt
            self.run.append(receipt)
            self.holdings.settled(receipt)


async def test_a_reply_that_was_taken_for_lost_and_comes_late_is_not_run_again(autojump_clock, nursery):
    bench = Bench()
    nursery.start_soon(bench.fetcher.run, Gate())
    nursery.start_soon(bench.fetcher.reconcile)
    await trio.sleep(20)

    bench.consumer.missed_in.send_nowait([delivery("a")])
    await trio.sleep(1)
    bench.consumer.read_in.send_nowait([delivery("a"), delivery("b")])
    await trio.sleep(1)

    assert bench.run == ["a", "b"]
    nursery.cancel_scope.cancel()


async def test_what_arrived_while_notes_were_compared_is_not_run_again(autojump_clock, nursery):
    bench = Bench()
    nursery.start_soon(bench.fetcher.run, Gate())
    nursery.start_soon(bench.fetcher.reconcile)
    await bench.consumer.asked.wait()

    bench.consumer.read_in.send_nowait([delivery("a")])
    await trio.sleep(1)
    bench.consumer.missed_in.send_nowait([delivery("a"), delivery("b")])
    await trio.sleep(1)

    assert bench.run == ["a", "b"]
    nursery.cancel_scope.cancel()


async def test_nothing_is_fetched_while_the_gate_is_closed_for_any_reason(autojump_clock, nursery):
    bench = Bench()
    gate = Gate()
    nursery.start_soon(bench.fetcher.run, gate)
    gate.close("quiet")
    gate.close("lease")
    bench.consumer.read_in.send_nowait([delivery("a")])

    await trio.sleep(10)
    gate.open("quiet")
    await trio.sleep(10)
    assert bench.run == []
    gate.open("lease")
    await trio.sleep(1)

    assert bench.run == ["a"]
    nursery.cancel_scope.cancel()
