"""The worker process that chicoryd starts."""

import faulthandler
import functools

import trio

from chicory.app import Chicory
from chicory.config import load_config
from chicory.errors import ConfigError
from chicory.exits import OK
from chicory.journal import start_logging
from chicory.loading import import_app
from chicory.process import limit_memory, refuse_memory, run
from chicory.worker.flavors import prepare
from chicory.worker.serve import serve


def main() -> int:
    """Work until told to stop; returns the exit code."""
    return run("worker", _main)


def preload() -> int:
    """Import the app and read the settings, in the template that workers are forked from; returns the exit code."""

    def load() -> int:
        _app()
        return OK

    return run("worker", load)


@functools.cache
def _app() -> Chicory:
    """The app with its settings: once for all workers of a template, which so are all alike."""
    where = load_config().app
    if where is None:
        raise ConfigError('app is not set; write app = "module:app" at the top of the configuration')
    app = import_app(where)
    # Opens no connection, but imports the drivers: in a template that is memory all workers share.
    assert app.broker is not app.backend
    # Likewise what validation needs; and a hint that cannot be read is told of once, not by each worker.
    for task in app.tasks.values():
        task.contract.prepare()
    prepare(app)
    return app


def _main() -> int:
    app = _app()
    start_logging(app.config)
    refuse_memory(app.config)
    limit_memory(app.config.supervisor.memory_hard)
    # Also for SIGABRT, which chicoryd sends to a worker that hangs: the stacks of all threads go to stderr.
    faulthandler.enable()
    trio.run(functools.partial(serve, app, scheduler=False))
    return OK
