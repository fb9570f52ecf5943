"""The three kinds of callers, under one name each: what a test does through one of them, it does in its own world."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio

from chicory import (
    AsyncResult,
    Chicory,
    RemoteTask,
    TaskMessage,
    as_completed,
    as_completed_sync,
    gather,
    gather_sync,
)

KINDS = ("trio", "asyncio", "sync")


class TrioCaller:
    """Calls in the trio run of the test."""

    async def delay(self, task: RemoteTask, *args: Any) -> AsyncResult:
        return await task.delay(*args)

    async def send(self, task: RemoteTask, *args: Any) -> str:
        return await task.send(*args)

    async def map(self, task: RemoteTask, arguments: Iterable[Any]) -> list[AsyncResult]:
        return await task.map(arguments)

    async def publish(self, app: Chicory, message: TaskMessage) -> None:
        await app.publish(message)

    async def publish_many(self, app: Chicory, messages: Iterable[TaskMessage]) -> list[AsyncResult]:
        return await app.publish_many(messages)

    async def get(self, result: AsyncResult, timeout: float | None = 10) -> Any:
        return await result.get(timeout)

    async def state(self, result: AsyncResult) -> Any:
        return await result.state()

    async def cancel(self, result: AsyncResult) -> bool:
        return await result.cancel()

    async def gather(self, results: list[AsyncResult], timeout: float | None = 10) -> list[Any]:
        return await gather(results, timeout)

    async def completed(self, results: list[AsyncResult], heard: Callable[[Any], None]) -> None:
        async for result in as_completed(results, timeout=10):
            heard(await result.get(timeout=0))

    async def close(self, app: Chicory) -> None:
        await app.aclose()


class AsyncioCaller:
    """Calls in coroutines of a loop that runs in a thread of its own."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    async def run(self, function: Callable[[], Awaitable[Any]]) -> Any:
        """What *function* returns, called and awaited in the loop."""

        async def call() -> Any:
            return await function()

        future = asyncio.run_coroutine_threadsafe(call(), self.loop)
        try:
            return await trio.to_thread.run_sync(future.result, abandon_on_cancel=True)
        finally:
            future.cancel()

    async def delay(self, task: RemoteTask, *args: Any) -> AsyncResult:
        return await self.run(lambda: task.delay(*args))

    async def send(self, task: RemoteTask, *args: Any) -> str:
        return await self.run(lambda: task.send(*args))

    async def map(self, task: RemoteTask, arguments: Iterable[Any]) -> list[AsyncResult]:
        return await self.run(lambda: task.map(arguments))

    async def publish(self, app: Chicory, message: TaskMessage) -> None:
        await self.run(lambda: app.publish(message))

    async def publish_many(self, app: Chicory, messages: Iterable[TaskMessage]) -> list[AsyncResult]:
        return await self.run(lambda: app.publish_many(messages))

    async def get(self, result: AsyncResult, timeout: float | None = 10) -> Any:
        return await self.run(lambda: result.get(timeout))

    async def state(self, result: AsyncResult) -> Any:
        return await self.run(result.state)

    async def cancel(self, result: AsyncResult) -> bool:
        return await self.run(result.cancel)

    async def gather(self, results: list[AsyncResult], timeout: float | None = 10) -> list[Any]:
        return await self.run(lambda: gather(results, timeout))

    async def completed(self, results: list[AsyncResult], heard: Callable[[Any], None]) -> None:
        async def complete() -> None:
            async for result in as_completed(results, timeout=10):
                heard(await result.get(timeout=0))

        await self.run(complete)

    async def close(self, app: Chicory) -> None:
        await self.run(app.aclose)


class SyncCaller:
    """Calls in threads, not always the same."""

    async def delay(self, task: RemoteTask, *args: Any) -> AsyncResult:
        return await trio.to_thread.run_sync(task.delay_sync, *args)

    async def send(self, task: RemoteTask, *args: Any) -> str:
        return await trio.to_thread.run_sync(task.send_sync, *args)

    async def map(self, task: RemoteTask, arguments: Iterable[Any]) -> list[AsyncResult]:
        return await trio.to_thread.run_sync(task.map_sync, arguments)

    async def publish(self, app: Chicory, message: TaskMessage) -> None:
        await trio.to_thread.run_sync(app.publish_sync, message)

    async def publish_many(self, app: Chicory, messages: Iterable[TaskMessage]) -> list[AsyncResult]:
        return await trio.to_thread.run_sync(app.publish_many_sync, messages)

    async def get(self, result: AsyncResult, timeout: float | None = 10) -> Any:
        return await trio.to_thread.run_sync(result.get_sync, timeout)

    async def state(self, result: AsyncResult) -> Any:
        return await trio.to_thread.run_sync(result.state_sync)

    async def cancel(self, result: AsyncResult) -> bool:
        return await trio.to_thread.run_sync(result.cancel_sync)

    async def gather(self, results: list[AsyncResult], timeout: float | None = 10) -> list[Any]:
        return await trio.to_thread.run_sync(gather_sync, results, timeout)

    async def completed(self, results: list[AsyncResult], heard: Callable[[Any], None]) -> None:
        def complete() -> None:
            for result in as_completed_sync(results, timeout=10):
                heard(result.get_sync(timeout=0))

        await trio.to_thread.run_sync(complete)

    async def close(self, app: Chicory) -> None:
        await trio.to_thread.run_sync(app.close)


Caller = TrioCaller | AsyncioCaller | SyncCaller


@asynccontextmanager
async def open_caller(kind: str) -> AsyncGenerator[Caller]:
    """A caller of *kind*; a loop of its own ends with the block."""
    if kind != "asyncio":
        yield TrioCaller() if kind == "trio" else SyncCaller()
        return
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        thread = threading.Thread(target=partial(_serve, loop))
        thread.start()
        try:
            yield AsyncioCaller(loop)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
