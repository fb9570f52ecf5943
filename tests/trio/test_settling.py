"""What a worker writes, in which order, where results are kept apart from the queue."""

import trio

from chicory import Chicory, TaskState
from chicory.backends.memory import MemoryBackend
from chicory.errors import BrokerUnavailable
from chicory.testing import running_worker


class Apart(MemoryBackend):
    """No part of the broker; *error* is what whoever stores meets."""

    error = None

    def joins(self, broker):
        return False

    async def store(self, records):
        await trio.lowlevel.checkpoint()
        if self.error:
            raise self.error
        await super().store(records)


async def test_m1_a_delivery_is_held_until_its_result_is_stored(autojump_clock, app, books):
    backend = Apart()
    apart = Chicory(app.broker, backend=backend)

    @apart.task
    async def work() -> int:
        return 7

    async with running_worker(apart) as worker:
        backend.error = BrokerUnavailable("away")
        result = await work.delay()
        await trio.sleep(1.0)
        sizes = await apart.broker.get_queue_sizes()
        # Were it acknowledged, a worker that died now would take its result with it.
        assert (worker.running, sizes.delivered) == (0, 1)

        backend.error = None
        assert await result.get() == 7
        await worker.settled(1)

    assert await result.state() is TaskState.SUCCESS
