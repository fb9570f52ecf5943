"""chicoryd for as long as the example runs."""

import json
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import trio

COMMAND = (sys.executable, "-m", "chicoryd")


class DaemonFailed(Exception):
    """chicoryd did not start; it has said why."""


@asynccontextmanager
async def running_daemon(config: str) -> AsyncGenerator[trio.Process, None]:
    """chicoryd, ready; it is stopped at the end, also by Ctrl-C, and its process says how it went."""
    async with trio.open_nursery() as nursery:
        start = partial(trio.run_process, [*COMMAND, "start", "-c", config], check=False, deliver_cancel=_drain)
        process: trio.Process = await nursery.start(start)
        await _ready(process, config)
        yield process
        await trio.run_process([*COMMAND, "stop", "-c", config], check=False, capture_stdout=True)
        await process.wait()


async def _ready(process: trio.Process, config: str) -> None:
    while process.poll() is None:
        status = [*COMMAND, "status", "--json", "-c", config]
        answer = await trio.run_process(status, check=False, capture_stdout=True, stderr=subprocess.DEVNULL)
        if answer.returncode == 0:
            told = json.loads(answer.stdout)
            # Of another daemon that ran here before, ours will say that it is there, and end.
            if told["pid"] == process.pid and told["state"] == "running":
                return
        await trio.sleep(0.1)
    raise DaemonFailed(f"chicoryd ended with {process.returncode}")


async def _drain(process: trio.Process) -> None:
    """When we are cancelled, the daemon still finishes what it runs; it has deadlines of its own."""
    process.send_signal(signal.SIGTERM)
    await process.wait()
