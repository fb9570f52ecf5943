"""Tasks written for asyncio, on a real server: what is sent, what they send themselves, and a client of their own."""

import asyncio

import redis.asyncio

from chicory import AsyncResult, Chicory
from chicory.testing import running_worker


async def test_a_task_on_asyncio_calls_others_and_uses_a_client_of_its_own(server):
    app = Chicory(server.url, flavor="asyncio")

    @app.task(name="note")
    async def note(key: str, value: int) -> str:
        async with redis.asyncio.Redis.from_url(server.url) as client:
            await client.set(key, value)
            return (await client.get(key)).decode()

    @app.task(name="fan-out")
    async def fan_out(count: int) -> list[str]:
        results: list[AsyncResult[str]] = await asyncio.gather(
            *[note.delay(f"fan-out:{number}", number) for number in range(count)]
        )
        return await asyncio.gather(*[result.get(timeout=30) for result in results])

    async with app, running_worker(app, concurrency=8):
        result = await fan_out.delay(20)

        assert await result.get(timeout=30) == [str(number) for number in range(20)]
