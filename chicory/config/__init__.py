"""Settings: one tree of classes, from defaults, a TOML file, the environment, code and flags, in rising order."""

from chicory.config.loading import load_config, load_with_origins
from chicory.config.section import evolve
from chicory.config.settings import (
    BackendConfig,
    BrokerConfig,
    ChicoryConfig,
    LogConfig,
    RabbitMQBrokerConfig,
    RedisBackendConfig,
    RedisBrokerConfig,
    RpcBackendConfig,
    SqlBackendConfig,
    SupervisorConfig,
    WorkerConfig,
)
from chicory.secret import SecretStr

__all__ = [
    "BackendConfig",
    "BrokerConfig",
    "ChicoryConfig",
    "LogConfig",
    "RabbitMQBrokerConfig",
    "RedisBackendConfig",
    "RedisBrokerConfig",
    "RpcBackendConfig",
    "SecretStr",
    "SqlBackendConfig",
    "SupervisorConfig",
    "WorkerConfig",
    "evolve",
    "load_config",
    "load_with_origins",
]
