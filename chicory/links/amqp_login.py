"""What a RabbitMQ server says of a connection, and what it means for us: too old, not for you, not there."""

import ssl
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, cast

import trio
from pamqp import commands

from chicory.errors import BrokerError, BrokerRefused, BrokerUnavailable
from chicory.links.amqp_address import Address

# Delivery by queue-level dead-lettering from quorum queues, and so much else, came with it.
FLOOR = (3, 10)
# Beats are sent twice as often as promised, and a server that missed two of its own is gone.
MISSED = 2

_REFUSALS = (403, 530)
# How a handshake fails: with an alert, or with the reset that overtakes it.
_BROKEN = (ssl.SSLError, trio.BrokenResourceError, ConnectionResetError, BrokenPipeError)


@contextmanager
def connecting(address: Address, timeout: float) -> Generator[list[Callable[[], None]]]:
    """A list of what is to be closed, should what is made within fail; then the error is one of ours."""
    closing: list[Callable[[], None]] = []
    try:
        with trio.fail_after(timeout):
            yield closing
    except BaseException as error:
        for close in closing:
            close()
        if (ours := _connecting_failed(address, error, timeout)) is not None:
            raise ours from error
        raise


def _connecting_failed(address: Address, error: BaseException, timeout: float) -> BrokerError | None:
    """What it means for us that *error* came of connecting to *address*; None when it says so itself."""
    if isinstance(error, trio.TooSlowError):
        return BrokerUnavailable(f"{address}: no answer in {timeout:g} s")
    if isinstance(error, _BROKEN) and address.tls is not None:
        cause = error.__cause__ or error
        return BrokerUnavailable(
            f"{address}: no TLS here ({reason(cause)}); check the CA, the name and the certificates"
        )
    if isinstance(error, OSError | trio.BrokenResourceError | trio.ClosedResourceError):
        return BrokerUnavailable(f"{address}: cannot connect ({reason(error)})")
    if type(error) is BrokerUnavailable:
        return BrokerUnavailable(f"{address}: {error}")
    return None


def product(start: commands.Connection.Start) -> str:
    """The server by name and version; BrokerRefused when it is too old."""
    named = cast("dict[str, Any]", start.server_properties)
    name, version = str(named.get("product", "?")), str(named.get("version", "0"))
    numbers = tuple(int(part) if part.isdigit() else 0 for part in version.split(".")[:2])
    if name == "RabbitMQ" and numbers < FLOOR:
        raise BrokerRefused(f"RabbitMQ {version} is too old; Chicory needs {'.'.join(map(str, FLOOR))} or newer")
    return f"{name} {version}"


def connection_error(close: commands.Connection.Close, address: Address) -> BrokerError:
    """The error that the server's closing stands for."""
    if close.reply_code in _REFUSALS:
        return BrokerRefused(
            f"{address}: RabbitMQ refuses access ({close.reply_text}); check username, password,"
            " and that the virtual host exists and the user may use it"
        )
    return BrokerUnavailable(f"RabbitMQ says: {close.reply_text}")


def silence(now: float, heard: float, looked: float, heartbeat: float) -> None:
    """Raises BrokerUnavailable for a server that was last *heard* too long ago, by one who *looked* before.

    Whoever stood still since he looked has not read yet what the server said meanwhile, and waits for the next time.
    """
    if now - looked < heartbeat and now - heard > heartbeat * MISSED:
        raise BrokerUnavailable(f"not heard of for {now - heard:.0f} s")


def reason(error: BaseException) -> str:
    """*error* in words."""
    return str(error) or type(error).__name__
