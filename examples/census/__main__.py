"""python -m examples.census -c conf/chicory.toml"""

import os
import signal
import sys

import click
import trio
from rich.console import Console

from examples.census.daemon import DaemonFailed
from examples.census.run import census


@click.command()
@click.option("-c", "--config", default="conf/chicory.toml", type=click.Path(exists=True), help="Settings.")
def main(config: str) -> None:
    """Measure Python's standard library, a task for each file, under a daemon started for it."""
    os.environ["CHICORY_CONFIG"] = os.path.abspath(config)  # the app reads what the daemon reads
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    ending: str | int = 1
    try:
        if trio.run(census, config, Console()):
            ending = 0
    except* KeyboardInterrupt:
        ending = "stopped; what was not finished waits for the next chicoryd"
    except* DaemonFailed as failed:
        ending = "; ".join(map(str, failed.exceptions))
    sys.exit(ending)


def _as_ctrl_c(*_: object) -> None:
    """A plain kill lets the daemon drain too."""
    signal.raise_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
