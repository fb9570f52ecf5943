"""Where a RabbitMQ server is, and how to be let in."""

import ssl
from urllib.parse import parse_qs, unquote, urlsplit

import attrs

from chicory.config import RabbitMQBrokerConfig
from chicory.config.rules import url_of_each_host
from chicory.errors import ConfigError
from chicory.secret import SecretStr


@attrs.frozen(kw_only=True)
class Address:
    """Where a server listens, and how to be let in.  Its str is safe to print."""

    host: str = "localhost"
    port: int = 5672
    vhost: str = "/"
    username: str = "guest"
    password: SecretStr = attrs.field(factory=lambda: SecretStr("guest"))
    tls: ssl.SSLContext | None = attrs.field(default=None, eq=False)

    def __str__(self) -> str:
        return f"{'amqps' if self.tls else 'amqp'}://{self.host}:{self.port}/{self.vhost.removeprefix('/')}"


def addresses_of(settings: RabbitMQBrokerConfig) -> tuple[Address, ...]:
    """The addresses in *settings*, in the order in which they are to be asked; a URL, when given, says it all.

    Raises ConfigError for a URL that cannot be read.
    """
    if settings.url is not None:
        return addresses_from_url(settings.url.get_secret_value())
    places = [urlsplit(f"//{host}") for host in settings.hosts]
    hosts = [(place.hostname or "", place.port or settings.port) for place in places]
    return tuple(
        Address(host=host, port=port, vhost=settings.vhost, username=settings.username, password=settings.password)
        for host, port in hosts or [(settings.host, settings.port)]
    )


def addresses_from_url(url: str) -> tuple[Address, ...]:
    """The address of each host in *url*."""
    try:
        urls = url_of_each_host(url)
    except ValueError:
        urls = [url]
    return tuple(address_from_url(one) for one in urls)


def address_from_url(url: str) -> Address:
    """The address in *url*: amqp:// or amqps://, where the path is the virtual host and none is `/`.

    Options of amqps, named as RabbitMQ's own clients name them: cacertfile, certfile, keyfile, and verify=verify_none.
    """
    try:
        parts = urlsplit(url)
        options = {name: values[-1] for name, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()}
        if parts.scheme not in ("amqp", "amqps") or not parts.hostname or (options and parts.scheme == "amqp"):
            raise ValueError("not a URL of RabbitMQ")
        tls = _tls_context(options) if parts.scheme == "amqps" else None
        return Address(
            host=parts.hostname,
            port=parts.port or (5672 if tls is None else 5671),
            vhost=unquote(parts.path.removeprefix("/")) or "/",
            username=unquote(parts.username) if parts.username else "guest",
            password=SecretStr(unquote(parts.password) if parts.password else "guest"),
            tls=tls,
        )
    except (ValueError, OSError) as error:
        # The message may quote the URL, and the URL may hold a password.
        raise ConfigError(
            "the RabbitMQ URL cannot be read; write amqp://user:password@host:5672/vhost or"
            " amqps://...?cacertfile=/path, with each / in the vhost as %2F"
        ) from (error if "@" not in url else None)


def _tls_context(options: dict[str, str]) -> ssl.SSLContext:
    if unknown := options.keys() - {"cacertfile", "certfile", "keyfile", "verify"}:
        raise ValueError(f"unknown options {unknown}")
    context = ssl.create_default_context(cafile=options.get("cacertfile"))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options.get("verify") == "verify_none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if "certfile" in options:
        context.load_cert_chain(options["certfile"], options.get("keyfile"))
    return context
