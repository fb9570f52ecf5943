"""RabbitMQ: queues, exchanges, and the roads between them."""

from chicory.brokers.rabbitmq.broker import RabbitMQBroker

__all__ = ["RabbitMQBroker"]
