"""What servers do otherwise than older ones, by how they name themselves.  Pure.

Since 4.3 they refuse, unless their configuration permits it, what was deprecated before: queues that are neither
durable nor exclusive, and one limit for all consumers of a channel.
"""

import re

_NUMBERS = re.compile(r"RabbitMQ (\d+)\.(\d+)")
_STRICT = (4, 3)


def version_of(product: str) -> tuple[int, int]:
    """The first two numbers in *product*, such as "RabbitMQ 4.3.1"; (0, 0) for another server, taken for an old one."""
    found = _NUMBERS.match(product)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def limits_channels(product: str) -> bool:
    """Whether a limit may hold for all consumers of a channel together."""
    return version_of(product) < _STRICT


def declares_durable(product: str, wanted: bool) -> bool:
    """Whether queues are declared durable: as *wanted*, where the server still gives the choice.

    Messages that need not outlive it do not, in a durable queue neither.
    """
    return wanted or version_of(product) >= _STRICT
