"""An app whose tasks send themselves; what runs is noted as in `tests.faults.tasks`."""

from chicory import TaskContext
from tests.faults.tasks import app, noted


@app.every(seconds=1, name="each", misfire="all")
@app.cron("* * * * * *", tz="Europe/Rome", name="newest", misfire="once")
@app.task(name="tick")
async def tick(context: TaskContext) -> str | None:
    with noted(context):
        return context.schedule
