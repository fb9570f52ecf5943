"""Every test that asks for `broker` or `make` runs on every broker, and its books have to close at the end (M13).

What a broker cannot promise it says in `cannot`, with the reason; a test that needs just that is marked with the same
words, `needs("deduplication")`, and left out for this broker alone.
"""

from functools import partial

import pytest
import trio

from tests.contract.harness import (
    AioPikaHarness,
    ClusterHarness,
    MemoryHarness,
    QuorumHarness,
    RabbitHarness,
    RedisHarness,
    SqlHarness,
    imbalance,
)
from tests.databases import mariadb_server, postgresql_server
from tests.servers import cluster_server, embedded_server, redis_server

__all__ = ["cluster_server", "embedded_server", "mariadb_server", "postgresql_server", "redis_server"]

# The queues that tests use: after each, the books of all of them are asked to close.
QUEUES = ("default", "other")
# Those that cannot promise everything, and what each is reached at.
LACKING = {
    "rabbitmq": (RabbitHarness, "rabbit_node"),
    "aio-pika": (AioPikaHarness, "rabbit_node"),
    "quorum": (QuorumHarness, "rabbit_node"),
    "cluster": (ClusterHarness, "cluster_server"),
}
KINDS = [
    "memory",
    "redis",
    "embedded",
    "rabbitmq",
    *(pytest.param(kind, marks=pytest.mark.long) for kind in ("aio-pika", "quorum")),
]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """By aio-pika these take long, and say of the broker what they say by the native path."""
    for item in items:
        if item.path.name in ("test_model.py", "test_unique.py") and item.callspec.params["kind"] == "aio-pika":
            item.add_marker(pytest.mark.long)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def harness_type(kind, request):
    """Makes a harness out of lease, result_ttl, joined, max_stream_length, dlq_max_length and max_priority."""
    if kind == "memory":
        return MemoryHarness
    if kind in LACKING:
        harness, server = LACKING[kind]
        for need in request.node.iter_markers("needs"):
            if need.args[0] in harness.cannot:
                pytest.skip(harness.cannot[need.args[0]])
            # A need that no broker lacks is a misspelt one.
            assert need.args[0] in QuorumHarness.cannot, need.args[0]
        return partial(harness, request.getfixturevalue(server))
    if kind == "sqlite":
        return partial(SqlHarness, f"sqlite:///{request.getfixturevalue('tmp_path')}/results.db")
    if kind in ("postgresql", "mariadb"):
        return partial(SqlHarness, request.getfixturevalue(f"{kind}_server").url)
    return partial(RedisHarness, request.getfixturevalue(f"{kind}_server"))


@pytest.fixture
async def make(harness_type):
    """Makes a broker with its backend, fresh and alone."""
    made = []

    def new(**settings):
        made.append(harness_type(**settings))
        return made[-1]

    yield new
    with trio.CancelScope(shield=True), trio.fail_after(10):
        try:
            for harness in made:
                for queue in QUEUES:
                    assert await imbalance(harness.broker, queue) == 0, f"the books of {queue} do not close"
        finally:
            for harness in made:
                await harness.broker.aclose()
                await harness.backend.aclose()


@pytest.fixture
def harness(make):
    return make()


@pytest.fixture
def broker(harness):
    return harness.broker


@pytest.fixture
def backend(harness):
    return harness.backend
