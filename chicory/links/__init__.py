"""The border to foreign clients: the only rooms that import redis, hiredis, pamqp or asyncio."""
