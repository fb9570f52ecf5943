"""Makes the broker and the backend that an app asks for.  Each driver is imported only by those who use it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar, assert_never

from chicory.config import BackendConfig, ChicoryConfig
from chicory.config.rules import SqlUrl
from chicory.config.section import evolve
from chicory.embedded import not_running, socket_url
from chicory.errors import ConfigError, did_you_mean
from chicory.outcome import most_shared
from chicory.secret import SecretStr
from chicory.types import BackendType, BrokerType

if TYPE_CHECKING:
    from chicory.backends.base import Backend
    from chicory.brokers.base import Broker

_REDIS = ("redis", "rediss", "unix")
_BROKERS: Mapping[str, BrokerType] = {
    **dict.fromkeys(_REDIS, BrokerType.REDIS),
    **dict.fromkeys(("amqp", "amqps"), BrokerType.RABBITMQ),
}
_BACKENDS: Mapping[str, BackendType] = {
    **dict.fromkeys(_REDIS, BackendType.REDIS),
    **dict.fromkeys(SqlUrl.SCHEMES, BackendType.SQL),
}

T = TypeVar("T", BrokerType, BackendType)


def broker_of(url: str) -> BrokerType:
    """The broker that speaks the scheme of *url*; ConfigError when none does."""
    return _known(url, _BROKERS, "broker")


def backend_at(url: str, said: BackendConfig) -> BackendConfig:
    """*said* with the backend that *url* means; ConfigError when no driver speaks its scheme."""
    kind = _known(url, _BACKENDS, "backend")
    section = said.sql if kind is BackendType.SQL else said.redis
    server = {kind.value: evolve(section, url=SecretStr(url))}
    return evolve(said, type=kind, **server)


def _known(url: str, schemes: Mapping[str, T], what: str) -> T:
    scheme = url.partition("://")[0] if "://" in url else ""
    if scheme not in schemes:
        known = ", ".join(f"{scheme}://" for scheme in schemes)
        raise ConfigError(f"no {what} speaks the URL scheme {scheme!r}{did_you_mean(scheme, schemes)} Known: {known}")
    return schemes[scheme]


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
            return _open_rabbitmq(config)
        case _:
            assert_never(config.broker.type)
    try:
        from chicory.brokers.redis import RedisBroker
    except ImportError as error:
        raise _missing("Redis", error) from error
    return RedisBroker(redis, hint=hint)


def _open_rabbitmq(config: ChicoryConfig) -> "Broker":
    try:
        from chicory.brokers.rabbitmq import RabbitMQBroker
    except ImportError as error:
        raise _missing("RabbitMQ", error) from error
    return RabbitMQBroker(config.broker.rabbitmq, most=most_shared(config.worker.max_deliveries))


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
        case BackendType.RPC:
            return _open_rpc(config)
        case BackendType.REDIS:
            redis, hint = chosen.redis, ""
        case BackendType.SQL:
            return _open_sql(chosen)
        case _:
            assert_never(chosen.type)
    try:
        from chicory.backends.redis import RedisBackend
    except ImportError as error:
        raise _missing("Redis", error) from error
    return RedisBackend(redis, hint=hint)


def _open_rpc(config: ChicoryConfig) -> "Backend":
    if config.broker.type is not BrokerType.RABBITMQ:
        raise ConfigError('backend.type = "rpc": results are sent by RabbitMQ only; set broker.type = "rabbitmq"')
    try:
        from chicory.backends.rabbitmq import RpcBackend
    except ImportError as error:
        raise _missing("RabbitMQ", error) from error
    return RpcBackend(config.broker.rabbitmq, result_ttl=config.backend.rpc.result_ttl)


def _open_sql(chosen: BackendConfig) -> "Backend":
    try:
        from chicory.backends.sql import SqlBackend
    except ImportError as error:
        raise _missing("SQL", error) from error
    return SqlBackend(chosen.sql)


def _state_dir(config: ChicoryConfig) -> str:
    return config.broker.state_dir or ".chicory"


def _socket(config: ChicoryConfig) -> SecretStr:
    return SecretStr(socket_url(_state_dir(config)))


def _missing(server: str, error: ImportError) -> ConfigError:
    extra = server.lower()
    return ConfigError(f"{server} needs another package ({error}); install it with: pip install 'chicoryd[{extra}]'")
