"""The check process: whether a configuration holds, and with flags whether the app imports and the broker answers.

It is a process of its own because importing an app runs whatever the app runs, and may break whatever it breaks.
"""

import argparse
import sys
from pathlib import Path

import trio

from chicory.app import Chicory
from chicory.config.loading import examine
from chicory.errors import ConfigError
from chicory.exits import BAD_CONFIG, OK
from chicory.loading import import_app
from chicory.process import refuse_memory, run

# A broker that is just starting, or a line that is slow, is given this long.
PATIENCE = 15.0


def main() -> int:
    """Check what the command line asks for; returns the exit code, after a line for each problem."""
    return run("check", _main)


def _main() -> int:
    parser = argparse.ArgumentParser(prog="chicory check")
    parser.add_argument("-c", "--config", type=Path)
    parser.add_argument("--app", action="store_true", help="import the app")
    parser.add_argument("--broker", action="store_true", help="ask the broker whether it will do")
    asked = parser.parse_args(sys.argv[1:])

    loaded = examine(asked.config)
    for problem in loaded.problems:
        print(f"chicory check: {problem}", file=sys.stderr)
    if loaded.config is None:
        return BAD_CONFIG
    where = loaded.config.app
    if asked.app and where is None:
        raise ConfigError('app is not set; write app = "module:app" at the top of the configuration')
    # The broker may be named by the app's code, so the app is needed for either.
    app = import_app(where) if where is not None and (asked.app or asked.broker) else Chicory()
    app.configure(asked.config)
    if asked.app:
        refuse_memory(app.config)
    if asked.broker:
        trio.run(_ping, app)
    return OK


async def _ping(app: Chicory) -> None:
    async with app:
        with trio.fail_after(PATIENCE):
            await app.broker.ping()
