"""python -m examples.census -c conf/chicory.toml [--broker rabbitmq]"""

import os
import signal
import sys
from contextlib import ExitStack

import click
import trio
from rich.console import Console

from examples.census.daemon import DaemonFailed
from examples.census.run import census
from examples.node import NodeFailed, private_node


@click.command()
@click.option("-c", "--config", default="conf/chicory.toml", type=click.Path(exists=True), help="Settings.")
@click.option("--broker", type=click.Choice(["embedded", "redis", "rabbitmq"]), help="Instead of the settings'.")
def main(config: str, broker: str | None) -> None:
    """Measure Python's standard library, a task for each file, under a daemon started for it."""
    with ExitStack() as stack:
        if broker is not None:
            os.environ["CHICORY_BROKER_TYPE"] = broker
        if broker == "rabbitmq":
            use_rabbitmq(stack)
        sys.exit(run(config))


def use_rabbitmq(stack: ExitStack) -> None:
    """Have results sent, for RabbitMQ keeps none; where the environment names no server, start one."""
    os.environ["CHICORY_BACKEND_TYPE"] = "rpc"
    if "CHICORY_BROKER_RABBITMQ_URL" in os.environ or "CHICORY_BROKER_RABBITMQ_HOST" in os.environ:
        return
    try:
        os.environ["CHICORY_BROKER_RABBITMQ_URL"] = stack.enter_context(private_node()).url()
    except NodeFailed as failed:
        sys.exit(f"{failed}, or name a server of yours in CHICORY_BROKER_RABBITMQ_URL")


def run(config: str) -> str | int:
    """What to exit with."""
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
    return ending


def _as_ctrl_c(*_: object) -> None:
    """A plain kill lets the daemon drain too."""
    signal.raise_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
