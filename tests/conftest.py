"""Fixtures that every test may use; servers live in `tests/servers.py`."""

import pytest


@pytest.fixture(scope="session")
def rabbit_node():
    """One RabbitMQ node for the whole session, wherever its tests are: it takes seconds to start."""
    from tests.rabbit import running_node

    with running_node() as node:
        yield node
