"""Results by RabbitMQ, sent to whoever sent the tasks."""

from chicory.backends.rabbitmq.backend import RpcBackend

__all__ = ["RpcBackend"]
