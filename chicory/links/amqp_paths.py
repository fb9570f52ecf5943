"""The two ways to speak to RabbitMQ, by the name of the setting."""

from chicory.config.settings import DataPath
from chicory.errors import ConfigError
from chicory.links.amqp_port import Connect


def connector(data_path: DataPath) -> Connect:
    """What opens connections by *data_path*; ConfigError where what it needs is not installed."""
    if data_path == "native":
        from chicory.links.amqp import connect

        return connect
    try:
        from chicory.links.amqp_asyncio import connect as connect_by_aio_pika
    except ImportError as error:
        raise ConfigError(
            f'broker.rabbitmq.data_path = "aio-pika" needs another package ({error});'
            " install it with: pip install 'chicoryd[aio-pika]'"
        ) from error
    return connect_by_aio_pika
