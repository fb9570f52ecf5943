"""An app that carries, with a task of each kind that says what it finds; child processes import this module."""

import asyncio
from contextvars import ContextVar
from typing import Any

import trio

from chicory import BackendType, BrokerType, Chicory, RetryPolicy

tenant: ContextVar[Any] = ContextVar("tenant", default="nobody")
locale: ContextVar[str] = ContextVar("locale")
# Is not carried.
trace: ContextVar[str] = ContextVar("trace", default="none")


def found() -> list[Any]:
    return [tenant.get(), locale.get("unset"), trace.get()]


def tenants() -> Chicory:
    """A new app, whose messages are in memory."""
    app = Chicory(
        BrokerType.MEMORY,
        BackendType.MEMORY,
        retry_policy=RetryPolicy(max_retries=0, retry_delay=0.01),
        carry=[tenant, locale],
    )

    @app.task(name="at-once")
    async def at_once() -> list[Any]:
        return seen(found())

    @app.task(name="timed", timeout=30)
    async def timed() -> list[Any]:
        return seen(found())

    @app.task(name="waits")
    async def waits() -> list[Any]:
        await trio.sleep(0)
        return seen(found())

    @app.task(name="asyncio", flavor="asyncio")
    async def on_asyncio() -> list[Any]:
        await asyncio.sleep(0)
        return seen(await asyncio.create_task(asyncio.to_thread(found)))

    @app.task(name="thread")
    def thread() -> list[Any]:
        return seen(found())

    @app.task(name="process", process=True)
    def process() -> list[Any]:
        return seen(found())

    return app


def seen(what: list[Any]) -> list[Any]:
    """*what*, and all variables set to something that nobody else should see."""
    tenant.set("leaked")
    locale.set("leaked")
    trace.set("leaked")
    return what


app = tenants()
