"""FastAPI: the endpoints await, on the loop that serves them.

uvicorn examples.web.with_fastapi:web
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Response

from chicory import ResultTimeout
from chicory.errors import QueueFull, ResultUnknown
from examples.web.tasks import app, total


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    """Connections are made when they are needed, and closed here."""
    async with app:
        yield


web = FastAPI(lifespan=lifespan)


@web.post("/totals", status_code=202)
async def ask(numbers: list[int]) -> dict[str, str]:
    """Have a total made; the id is what to ask for it by."""
    try:
        result = await total.delay(numbers)
    except QueueFull as full:
        raise HTTPException(503, "too much to do; try again later") from full
    return {"id": result.id}


@web.get("/totals/{task_id}")
async def tell(task_id: str, response: Response, wait: float = 0) -> dict[str, Any]:
    """The total, waited for *wait* seconds at most."""
    try:
        return {"total": await app.result(task_id).get(timeout=wait)}
    except ResultTimeout:
        response.status_code = 202
        return {"id": task_id}
    except ResultUnknown as unknown:
        raise HTTPException(404, "nobody asked for that") from unknown
