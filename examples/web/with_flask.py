"""Flask: the views block, each in its thread.

flask --app examples.web.with_flask:web run
"""

from typing import Any

from flask import Flask, abort, request

from chicory import ResultTimeout
from chicory.errors import QueueFull, ResultUnknown
from examples.web.tasks import app, total

web = Flask(__name__)


@web.post("/totals")
def ask() -> tuple[dict[str, str], int]:
    """Have a total made; the id is what to ask for it by."""
    try:
        result = total.delay_sync(request.get_json())
    except QueueFull:
        abort(503, "too much to do; try again later")
    return {"id": result.id}, 202


@web.get("/totals/<task_id>")
def tell(task_id: str) -> tuple[dict[str, Any], int]:
    """The total, waited for `wait` seconds at most."""
    try:
        return {"total": app.result(task_id).get_sync(timeout=request.args.get("wait", 0.0, float))}, 200
    except ResultTimeout:
        return {"id": task_id}, 202
    except ResultUnknown:
        abort(404, "nobody asked for that")
