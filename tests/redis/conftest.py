"""A broker behind a bad network, and one in front of a private server."""

import itertools
from collections.abc import Iterator

import pytest

from chicory.backends.redis import RedisBackend
from chicory.brokers.redis import RedisBroker
from chicory.config import RedisBackendConfig, RedisBrokerConfig
from tests.proxy import Proxy, open_proxy
from tests.servers import Server, running_server

_names = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server("redis", tcp=True, appendonly=True) as running:
        yield running


@pytest.fixture
async def proxy(server: Server):
    async with open_proxy(server.address) as opened:
        yield opened


@pytest.fixture
async def brokers():
    """Make brokers that are closed in the end; all of one test share a key prefix."""
    prefix = f"t{next(_names)}"
    made: list[RedisBroker | RedisBackend] = []

    def make(url: str, *, results: bool = False, **settings: object) -> RedisBroker:
        broker = RedisBroker(RedisBrokerConfig(url=url, key_prefix=prefix, **settings))
        made.append(broker)
        if results:
            backend = RedisBackend(RedisBackendConfig(url=url, key_prefix=prefix))
            made.append(backend)
            broker.join(backend)
        return broker

    yield make
    for one in made:
        await one.aclose()


@pytest.fixture
def direct(brokers, server: Server) -> RedisBroker:
    """A broker with nothing in its way."""
    return brokers(server.url, block_ms=500)


@pytest.fixture
def shaky(brokers, proxy: Proxy) -> RedisBroker:
    """The same broker through the proxy."""
    return brokers(proxy.url, block_ms=500)
