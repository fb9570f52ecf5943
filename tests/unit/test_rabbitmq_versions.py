"""What is asked of a RabbitMQ server, by its version: newer ones refuse what older ones have."""

import pytest

from chicory.brokers.rabbitmq.versions import declares_durable, limits_channels, version_of


@pytest.mark.parametrize(
    ("product", "version"),
    [
        ("RabbitMQ 3.10.8", (3, 10)),
        ("RabbitMQ 4.0.0+2", (4, 0)),
        ("RabbitMQ 4.10.0-rc.1", (4, 10)),
        ("LavinMQ 2.4.1", (0, 0)),
        ("RabbitMQ ?", (0, 0)),
    ],
)
def test_a_version_is_read_from_how_a_server_names_itself(product, version):
    assert version_of(product) == version


@pytest.mark.parametrize(
    ("product", "older"), [("RabbitMQ 3.10.8", True), ("RabbitMQ 4.2.9", True), ("RabbitMQ 4.3.0", False)]
)
def test_what_newer_servers_refuse_is_not_asked_of_them(product, older):
    assert limits_channels(product) is older
    assert declares_durable(product, False) is not older
    assert declares_durable(product, True)
