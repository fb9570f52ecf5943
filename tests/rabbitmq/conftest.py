"""Brokers on the session's node, each test in a virtual host of its own.

Tests that ask for `broker` or `brokers` are for both data paths: by aio-pika those marked so, and the rest at length.
"""

import pytest

from chicory.brokers.rabbitmq import RabbitMQBroker
from chicory.config import RabbitMQBrokerConfig
from tests.rabbit import RabbitNode, running_node


def pytest_generate_tests(metafunc):
    if "data_path" in metafunc.fixturenames:
        short = metafunc.definition.get_closest_marker("aio_pika")
        second = pytest.param("aio-pika", marks=() if short else pytest.mark.long)
        # By aio-pika no thread beats: docs/rabbitmq.md says so.
        native = metafunc.definition.get_closest_marker("native")
        metafunc.parametrize("data_path", ["native"] if native else ["native", second])


@pytest.fixture(scope="session")
def rabbit_node():
    """A node of their own, on which nobody else has connections."""
    with running_node() as node:
        yield node


@pytest.fixture
def vhost(rabbit_node: RabbitNode) -> str:
    return rabbit_node.vhost()


@pytest.fixture
async def brokers(rabbit_node: RabbitNode, vhost: str, data_path: str):
    """Make brokers that are closed in the end; all of one test share a virtual host."""
    made: list[RabbitMQBroker] = []

    def make(*, most: int | None = None, **settings: object) -> RabbitMQBroker:
        settings = {"url": rabbit_node.url(vhost), "publish_timeout": 5.0, "data_path": data_path, **settings}
        made.append(RabbitMQBroker(RabbitMQBrokerConfig(**settings), most=most))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()


@pytest.fixture
def broker(brokers) -> RabbitMQBroker:
    return brokers()
