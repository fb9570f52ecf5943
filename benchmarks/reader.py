"""The bare reader process: `python -m benchmarks.reader`.

It says "ready", reads `--count` tasks, and its last words are one JSON line with their latencies.
"""

import json
import os

import click

from benchmarks.bare import Bare, make_group, read
from benchmarks.process import URL


@click.command()
@click.option("--count", type=int, required=True)
def main(count: int) -> None:
    """See the module."""
    latencies: list[int] = []
    with Bare(os.environ[URL].removeprefix("unix://")) as bare:
        make_group(bare)
        print("ready", flush=True)
        for task, there in read(bare):
            latencies.append(there - task["args"][0])
            if len(latencies) == count:
                break
    print(json.dumps({"latencies": latencies}), flush=True)


if __name__ == "__main__":
    main()
