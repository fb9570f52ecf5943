"""The border to foreign clients: the only rooms that import redis, hiredis, aio_pika, trio_asyncio or asyncio."""
