"""Backends on private databases, each with a table of its own."""

import itertools
import os

import pytest
import trio

from chicory.backends.sql import SqlBackend
from chicory.config import SqlBackendConfig
from tests.databases import mariadb_server, postgresql_server, running_postgres

__all__ = ["mariadb_server", "postgresql_server"]

_numbers = itertools.count()


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def url(request, tmp_path):
    """Where each kind of database is."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/results.db"
    return request.getfixturevalue(f"{request.param}_server").url


@pytest.fixture
async def make():
    """Make backends that are closed in the end; all of one test share a table."""
    prefix = f"t{os.getpid()}_{next(_numbers)}"
    made = []

    def new(url, **settings):
        made.append(SqlBackend(SqlBackendConfig(url=url, table_prefix=prefix, **settings)))
        return made[-1]

    yield new
    with trio.CancelScope(shield=True):
        for backend in made:
            await backend.aclose()


@pytest.fixture
def backend(make, url):
    return make(url)


@pytest.fixture(scope="module")
def fragile():
    """A PostgreSQL that tests may kill."""
    with running_postgres() as database:
        yield database
