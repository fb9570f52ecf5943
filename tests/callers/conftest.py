"""An app on a private server, straight or through a bad network, and the callers of three kinds."""

import pytest

from chicory import Chicory
from tests.callers.callers import KINDS, open_caller
from tests.callers.grounds import RabbitGround, RedisGround, SqliteGround
from tests.servers import embedded_server, redis_server

__all__ = ["embedded_server", "redis_server"]

GROUNDS = {
    "redis": (RedisGround, "redis_server"),
    "embedded": (RedisGround, "embedded_server"),
    "rabbitmq": (RabbitGround, "rabbit_node"),
    "sqlite": (SqliteGround, "rabbit_node"),
}
# Those that differ in how a call is sent; the other only in where its result is kept.
BROKERS = ("redis", "embedded", "rabbitmq")


def pytest_generate_tests(metafunc):
    """Each test is for all BROKERS, or for those grounds that it names: `kinds("redis")`."""
    if "kind" in metafunc.fixturenames:
        said = metafunc.definition.get_closest_marker("kinds")
        metafunc.parametrize("kind", said.args if said else BROKERS)


@pytest.fixture
def ground(kind, request, tmp_path):
    """A test that is marked `needs("uniqueness")` is left out where callers are not promised that."""
    found, server = GROUNDS[kind]
    for need in request.node.iter_markers("needs"):
        # A need that every ground meets is a misspelt one: KeyError.
        if (why := RabbitGround.cannot[need.args[0]]) in found.cannot.values():
            pytest.skip(why)
    return found(request.getfixturevalue(server), tmp_path)


@pytest.fixture
def server(ground):
    return ground.server


@pytest.fixture
async def proxy(ground):
    async with ground.proxy() as opened:
        opened.url = ground.through(opened)
        yield opened


@pytest.fixture
def make(ground):
    """Makes an app; all of one test share their messages.  Not closed: that is the caller's part."""

    def new(url: str, **settings) -> Chicory:
        app = ground.app(url, **settings)

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
async def app(make, ground, caller):
    """An app that *caller* uses."""
    app = make(ground.url)
    yield app
    await caller.close(app)


@pytest.fixture
async def shaky(make, proxy, caller):
    """The same through the proxy, which gives up soon."""
    app = make(proxy.url, publish_timeout=1.0, connect_timeout=0.3)
    yield app
    await caller.close(app)


@pytest.fixture
async def broker(make, ground):
    """What is really there: the broker as the test itself sees it."""
    app = make(ground.url)
    yield ground.worked(app)
    await app.aclose()
