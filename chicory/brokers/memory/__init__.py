"""The broker in this process's memory: the reference for all others, and the one for tests.

Inside, `places` is one queue without any waiting, `store` is all queues and who holds what, and `broker`, `consumer`
and `keeper` wait around them.
"""

from chicory.brokers.memory.broker import MemoryBroker

__all__ = ["MemoryBroker"]
