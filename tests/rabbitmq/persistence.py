"""What a program does that takes BrokerError for what it is."""

import trio

from chicory.errors import BrokerError


async def eventually(operation):
    """Try again."""
    with trio.fail_after(20):
        while True:
            try:
                return await operation()
            except BrokerError:
                await trio.sleep(0.02)
