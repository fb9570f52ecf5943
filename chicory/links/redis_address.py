"""Where the settings say the Redis server is."""

from chicory.config import RedisBackendConfig, RedisBrokerConfig
from chicory.links.redis import Address, address_from_url


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
