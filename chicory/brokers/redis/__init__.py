"""Redis Streams: keys, scripts, and the roads between them."""

from chicory.brokers.redis.broker import RedisBroker

__all__ = ["RedisBroker"]
