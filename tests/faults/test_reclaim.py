"""One worker is dead among many deliveries of the living."""

import pytest
import trio

from chicory import BackendType, BrokerType, Chicory
from chicory.config import BackendConfig, BrokerConfig, ChicoryConfig, RedisBrokerConfig
from tests.faults.load import message


@pytest.mark.parametrize("busy", [1_000, pytest.param(10_000, marks=pytest.mark.long)])
async def test_the_deliveries_of_the_living_do_not_hide_those_of_the_dead(server, busy):
    redis = RedisBrokerConfig(url=server.url, key_prefix="reclaim", claim_min_idle_ms=60_000)
    config = ChicoryConfig(
        broker=BrokerConfig(type=BrokerType.REDIS, redis=redis), backend=BackendConfig(type=BackendType.NONE)
    )
    async with Chicory(config=config) as app:
        broker = app.broker
        await broker.publish_many([message() for _ in range(busy)])
        async with broker.consumer(["default"], name="living", limit=busy) as living:
            held = 0
            while held < busy:
                held += len(await living.receive(256))
            async with broker.consumer(["default"], name="dying", limit=3) as dying:
                lost = [message() for _ in range(3)]
                await broker.publish_many(lost)
                got = 0
                while got < 3:
                    got += len(await dying.receive(3))
                async with broker.keeper(["default"]) as keeper:
                    with trio.fail_after(2.0):
                        assert await keeper.reclaim(dead="dying", why="killed by SIGKILL") == 3
                    assert (await broker.get_queue_sizes()).ready == 3
        await broker.purge_queue()
