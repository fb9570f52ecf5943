"""An app on a private server, straight or through a bad network, and the callers of three kinds."""

import pytest

from chicory import Chicory
from chicory.backends.redis import RedisBackend
from chicory.brokers.redis import RedisBroker
from chicory.config import RedisBackendConfig, RedisBrokerConfig
from chicory.ids import new_id
from tests.callers.callers import KINDS, open_caller
from tests.proxy import open_proxy
from tests.servers import embedded_server, redis_server

__all__ = ["embedded_server", "redis_server"]


@pytest.fixture(params=["redis", "embedded"])
def server(request):
    return request.getfixturevalue(f"{request.param}_server")


@pytest.fixture
async def proxy(server):
    path = server.directory / f"p{new_id()[-6:]}"
    async with open_proxy(server.address, unix=path) as opened:
        yield opened
    path.unlink(missing_ok=True)


@pytest.fixture
def prefix():
    """The keys of one test."""
    return f"t{new_id()}"


@pytest.fixture
def make(prefix):
    """Makes an app; all of one test share their keys.  Not closed: that is the caller's part."""

    def new(url: str, *, joined: bool = True, **settings) -> Chicory:
        broker = RedisBroker(RedisBrokerConfig(url=url, key_prefix=prefix, **settings))
        backend = RedisBackend(RedisBackendConfig(url=url, key_prefix=prefix))
        if not joined:
            backend.joins = lambda broker: False
        app = Chicory(broker, backend)

        @app.task(name="add")
        async def add(x: int, y: int) -> int:
            return x + y

        return app

    return new


@pytest.fixture(params=KINDS)
async def caller(request):
    async with open_caller(request.param) as opened:
        yield opened


@pytest.fixture
async def app(make, server, caller):
    """An app that *caller* uses."""
    app = make(server.url)
    yield app
    await caller.close(app)


@pytest.fixture
async def shaky(make, proxy, caller):
    """The same through the proxy, which gives up soon."""
    app = make(proxy.url, publish_timeout=1.0, connect_timeout=0.3)
    yield app
    await caller.close(app)


@pytest.fixture
async def broker(make, server):
    """What is really there: the broker as the test itself sees it."""
    app = make(server.url)
    yield app.broker
    await app.aclose()
