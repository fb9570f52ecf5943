"""Brokers on the session's node, each test in a virtual host of its own."""

import pytest

from chicory.brokers.rabbitmq import RabbitMQBroker
from chicory.config import RabbitMQBrokerConfig
from tests.rabbit import RabbitNode, rabbit_node

__all__ = ["rabbit_node"]


@pytest.fixture
def vhost(rabbit_node: RabbitNode) -> str:
    return rabbit_node.vhost()


@pytest.fixture
async def brokers(rabbit_node: RabbitNode, vhost: str):
    """Make brokers that are closed in the end; all of one test share a virtual host."""
    made: list[RabbitMQBroker] = []

    def make(*, most: int | None = None, **settings: object) -> RabbitMQBroker:
        settings = {"url": rabbit_node.url(vhost), "publish_timeout": 5.0, **settings}
        made.append(RabbitMQBroker(RabbitMQBrokerConfig(**settings), most=most))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()


@pytest.fixture
def broker(brokers) -> RabbitMQBroker:
    return brokers()
