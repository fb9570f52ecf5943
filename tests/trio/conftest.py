"""An app on the memory broker, and its books, which must close after each test."""

import pytest

from chicory.testing import memory_app
from tests.trio.books import close_books


@pytest.fixture
def app():
    return memory_app()


@pytest.fixture
async def books(app):
    yield
    await close_books(app)
