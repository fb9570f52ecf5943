"""Run a worker, and a scheduler beside it, in this process."""

import functools
import os
from pathlib import Path

import click

from chicory.cli.config import file_option


@click.command()
@click.argument("app", metavar="MODULE:APP")
@click.option("-q", "--queue", "queues", multiple=True, metavar="NAME", help="Fetch from this queue; may be repeated.")
@click.option("-n", "--concurrency", type=click.IntRange(min=1), help="Tasks that run at once.")
@click.option("--prefetch", type=click.IntRange(min=0), help="Messages held beyond those that run.")
@click.option("--dlq/--no-dlq", default=None, help="Keep what has used up its retries as dead letters.")
@click.option(
    "--scheduler/--no-scheduler", default=True, help="Also promote delayed messages and replace dead workers."
)
@click.option("--burst", is_flag=True, help="Stop when the queues are empty.")
@click.option("--require-broker", is_flag=True, default=None, help="Exit with 69 when the broker cannot be reached.")
@click.option("--log-level", metavar="LEVEL", help="DEBUG, INFO, WARNING, ERROR or CRITICAL.")
@file_option
def worker(
    app: str,
    queues: tuple[str, ...],
    concurrency: int | None,
    prefetch: int | None,
    dlq: bool | None,
    scheduler: bool,
    burst: bool,
    require_broker: bool | None,
    log_level: str | None,
    file: Path | None,
) -> None:
    """Run the tasks of MODULE:APP until SIGTERM or Ctrl-C; then finish what runs.  A second Ctrl-C does not wait.

    Settings come from FILE and the environment; the flags here win.
    """
    import trio

    from chicory.journal import start_logging
    from chicory.loading import import_app
    from chicory.process import refuse_memory
    from chicory.worker.serve import serve

    if file is not None:
        # Before the app is imported: its module may look at its settings.
        os.environ["CHICORY_CONFIG"] = str(file)
    loaded = import_app(app)
    loaded.configure(
        file,
        {
            "worker.queues": queues or None,
            "worker.concurrency": concurrency,
            "worker.prefetch": prefetch,
            "worker.use_dead_letter_queue": dlq,
            "worker.require_broker": require_broker,
            "worker.log_level": log_level,
        },
    )
    start_logging(loaded.config)
    refuse_memory(loaded.config)
    trio.run(functools.partial(serve, loaded, scheduler=scheduler, burst=burst))
