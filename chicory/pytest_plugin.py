"""The pytest plugin: fixtures that keep an app's messages in memory.

pytest imports this when it starts, in every project that has Chicory installed, so it imports nothing of Chicory's and
no trio before a fixture is used.
"""

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from chicory.app import Chicory
    from chicory.testing import Clock, Queues

_MARK = "chicory(eager=False, propagate=False, clock=None, autojump=0.0): how chicory_queues is made, as memory()"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addini("chicory_app", "the app under test, as module:name; or override the fixture of that name", default="")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARK)


@pytest.fixture(scope="session")
def chicory_app(pytestconfig: pytest.Config) -> "Chicory":
    """The app under test: what `chicory_app` names in pytest's settings."""
    named = pytestconfig.getini("chicory_app")
    if not named:
        pytest.fail('say chicory_app = "module:name" in pytest\'s settings, or override the chicory_app fixture', False)
    from chicory.loading import import_app

    return import_app(named)


@pytest.fixture
def chicory_queues(request: pytest.FixtureRequest, chicory_app: "Chicory") -> "Generator[Queues]":
    """The app's queues, in memory while the test lasts.  `@pytest.mark.chicory(eager=True)` says how."""
    from chicory.testing import memory

    # From the module's to the function's: the nearest one counts.
    options: dict[str, Any] = {}
    for mark in reversed(list(request.node.iter_markers("chicory"))):
        options |= mark.kwargs
    with memory(chicory_app, **options) as queues:
        yield queues


@pytest.fixture
def chicory_clock(chicory_queues: "Queues") -> "Clock":
    """The time of the test: `chicory_queues.clock`."""
    return chicory_queues.clock
