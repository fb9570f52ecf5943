"""Makes the broker and the backend that an app asks for.  Each driver is imported only by those who use it."""

from typing import TYPE_CHECKING, assert_never

from chicory.config import ChicoryConfig
from chicory.config.section import evolve
from chicory.embedded import not_running, socket_url
from chicory.errors import ConfigError, did_you_mean
from chicory.secret import SecretStr
from chicory.types import BackendType, BrokerType

if TYPE_CHECKING:
    from chicory.backends.base import Backend
    from chicory.brokers.base import Broker

_SCHEMES = ("redis", "rediss", "unix")


def check_url(url: str) -> str:
    """*url*, when a driver speaks its scheme; else ConfigError."""
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme not in _SCHEMES:
        known = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
        raise ConfigError(f"no broker speaks the URL scheme {scheme!r}{did_you_mean(scheme, _SCHEMES)} Known: {known}")
    return url


def open_broker(config: ChicoryConfig) -> "Broker":
    """The broker that *config* describes; it connects when it is first used."""
    match config.broker.type:
        case BrokerType.MEMORY:
            from chicory.brokers.memory import MemoryBroker

            return MemoryBroker(
                lease=config.broker.redis.claim_min_idle_ms / 1000,
                max_stream_length=config.broker.redis.max_stream_length,
                dlq_max_length=config.broker.redis.dlq_max_length,
                max_priority=config.broker.redis.max_priority,
            )
        case BrokerType.EMBEDDED:
            redis, hint = evolve(config.broker.redis, url=_socket(config)), not_running(_state_dir(config))
        case BrokerType.REDIS:
            redis, hint = config.broker.redis, ""
        case BrokerType.RABBITMQ:
            raise ConfigError("this version speaks Redis Streams only; use BrokerType.REDIS or BrokerType.EMBEDDED")
        case _:
            assert_never(config.broker.type)
    try:
        from chicory.brokers.redis import RedisBroker
    except ImportError as error:
        raise _missing(error) from error
    return RedisBroker(redis, hint=hint)


def open_backend(config: ChicoryConfig) -> "Backend | None":
    """The backend that *config* describes, None when no results are kept."""
    chosen = config.chosen_backend
    match chosen.type:
        case BackendType.NONE | None:
            return None
        case BackendType.MEMORY:
            from chicory.backends.memory import MemoryBackend

            return MemoryBackend(result_ttl=chosen.redis.result_ttl)
        case BackendType.EMBEDDED:
            redis, hint = evolve(chosen.redis, url=_socket(config)), not_running(_state_dir(config))
        case BackendType.REDIS:
            redis, hint = chosen.redis, ""
        case _:
            assert_never(chosen.type)
    try:
        from chicory.backends.redis import RedisBackend
    except ImportError as error:
        raise _missing(error) from error
    return RedisBackend(redis, hint=hint)


def _state_dir(config: ChicoryConfig) -> str:
    return config.broker.state_dir or ".chicory"


def _socket(config: ChicoryConfig) -> SecretStr:
    return SecretStr(socket_url(_state_dir(config)))


def _missing(error: ImportError) -> ConfigError:
    return ConfigError(f"Redis needs another package ({error}); install it with: pip install 'chicoryd[redis]'")
