"""Where a Redis server is, and how to be let in.

A plain URL is taken apart by the standard library; TLS and other options are read by redis-py.
"""

import ssl
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import attrs

from chicory.config import RedisBackendConfig, RedisBrokerConfig
from chicory.errors import ConfigError
from chicory.secret import SecretStr


@attrs.frozen(kw_only=True)
class Address:
    """Where a server listens, and how to be let in.  Its str is safe to print."""

    host: str = "localhost"
    port: int = 6379
    path: str | None = None
    db: int = 0
    username: str | None = None
    password: SecretStr | None = None
    tls: ssl.SSLContext | None = attrs.field(default=None, eq=False)

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}" + (f"?db={self.db}" if self.db else "")
        return f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}/{self.db}"


def address_of(settings: RedisBrokerConfig | RedisBackendConfig) -> Address:
    """The address in *settings*; a URL, when given, says it all.  Raises ConfigError for a URL that cannot be read."""
    if settings.url is not None:
        return address_from_url(settings.url.get_secret_value())
    return Address(
        host=settings.host,
        port=settings.port,
        db=settings.db,
        username=settings.username,
        password=settings.password,
    )


def address_from_url(url: str) -> Address:
    """The address in *url*: redis://, rediss:// or unix://, with the query options of redis-py."""
    try:
        return _plain_address(url) or _address_with_options(url)
    except ValueError as error:
        # The message may quote the URL, and the URL may hold a password.
        raise ConfigError(
            "the Redis URL cannot be read; write redis://user:password@host:6379/0, rediss://... or unix:///path?db=0"
        ) from (error if "@" not in url else None)


def _plain_address(url: str) -> Address | None:
    """The address in a URL without options or TLS; None when redis-py has to read it.

    Importing redis-py takes 0.2 s and 15 MB, too much for every worker only to take a plain URL apart.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "unix") or parts.query or parts.fragment:
        return None
    password = SecretStr(unquote(parts.password)) if parts.password else None
    username = unquote(parts.username) if parts.username else None
    if parts.scheme == "unix":
        return Address(path=unquote(parts.path), username=username, password=password) if parts.path else None
    database = parts.path.strip("/")
    return Address(
        host=parts.hostname or "localhost",
        port=parts.port or 6379,
        db=int(database) if database else 0,
        username=username,
        password=password,
    )


def _address_with_options(url: str) -> Address:
    from redis.asyncio.connection import parse_url

    parts = cast("dict[str, Any]", parse_url(url))
    password = parts.get("password")
    return Address(
        host=parts.get("host", "localhost"),
        port=parts.get("port", 6379),
        path=parts.get("path"),
        db=int(parts.get("db", 0)),
        username=parts.get("username"),
        password=SecretStr(password) if password else None,
        tls=_tls_context(parts) if url.startswith("rediss://") else None,
    )


def _tls_context(options: dict[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"), cadata=options.get("ssl_ca_data"))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    wanted = options.get("ssl_cert_reqs", "required")
    if wanted in ("none", "optional"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE if wanted == "none" else ssl.CERT_OPTIONAL
    if str(options.get("ssl_check_hostname", "true")).lower() in ("false", "0", "no"):
        context.check_hostname = False
    if options.get("ssl_certfile"):
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"), options.get("ssl_password"))
    return context
