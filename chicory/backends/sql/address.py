"""Which database a URL means, and the driver that speaks to it."""

import importlib
from typing import Any

import attrs
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from chicory.errors import ConfigError
from chicory.secret import SecretStr

# Seconds to wait for a connection.
CONNECT = 5


@attrs.frozen
class Driver:
    """A database, the package that speaks to it, and the extra that installs the package."""

    title: str
    module: str
    extra: str
    arguments: dict[str, Any]


# A host that has vanished is noticed within some seconds, though it says nothing.
_POSTGRESQL = {
    "connect_timeout": CONNECT,
    "application_name": "chicory",
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    # Prepared statements do not pass through every pooler that may stand before the server.
    "prepare_threshold": None,
}
_MYSQL = {"connect_timeout": CONNECT, "read_timeout": 5, "write_timeout": 5}
# The wait for another process's transaction; threads take turns with one connection.
_SQLITE = {"timeout": 5.0, "check_same_thread": False, "isolation_level": None}

DRIVERS = {
    "postgresql": Driver("PostgreSQL", "psycopg", "postgresql", _POSTGRESQL),
    "mysql": Driver("MySQL", "pymysql", "mysql", _MYSQL),
    "mariadb": Driver("MariaDB", "pymysql", "mysql", _MYSQL),
    "sqlite": Driver("SQLite", "sqlite3", "sql", _SQLITE),
}


@attrs.frozen
class Address:
    """Where a database is.  As text it is without user and options, which may hold a password too."""

    url: URL = attrs.field(repr=False)
    kind: str
    driver: Driver = attrs.field(repr=False)

    def arguments(self) -> dict[str, Any]:
        """What to connect with, but for what the URL says itself."""
        return {name: value for name, value in self.driver.arguments.items() if name not in self.url.query}

    def __str__(self) -> str:
        shown = URL.create(self.kind, host=self.url.host, port=self.url.port, database=self.url.database)
        return shown.render_as_string()


def address_of(secret: SecretStr | None) -> Address:
    """The database that a URL means; raises ConfigError, also when the driver is not installed."""
    if secret is None:
        raise ConfigError(
            "backend.sql.url is missing: say where results are kept, such as 'postgresql://user:password@host/database'"
        )
    try:
        url = make_url(secret.get_secret_value())
    except (ArgumentError, ValueError):
        url = None
    if url is None:
        raise ConfigError("backend.sql.url is not a URL of a database")  # out here, so that no secret is chained
    kind = url.get_backend_name()
    driver = DRIVERS[kind]
    try:
        importlib.import_module(driver.module)
    except ImportError as error:
        raise ConfigError(
            f"{driver.title} needs another package ({error}); install it with: pip install 'chicoryd[{driver.extra}]'"
        ) from error
    name = {"sqlite3": "pysqlite"}.get(driver.module, driver.module)
    return Address(url.set(drivername=f"{kind}+{name}"), kind, driver)
