"""The command line that every program here has.

    program.py with_NAME commands                           says how its users would start the workers asked for
    program.py with_NAME enqueue probe KIND 1               sends one, which only shows that workers work
    program.py with_NAME enqueue bulk|single KIND COUNT     sends that many tasks, and says how long it took
    program.py with_NAME enqueue paced KIND COUNT RATE      sends them at that many a second; says when each was sent
    program.py with_NAME enqueue due KIND COUNT UNIX        sends tasks that are due at that instant

What it says is one line of JSON.  Settings come in the environment; see `work`.
"""

import asyncio
import importlib
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

from work import PROBE


class Producer(Protocol):
    """How a queue's user sends tasks; the functions of a queue that blocks just block."""

    async def one(self, kind: str, number: int) -> object:
        """Send one, and return when the broker has it."""
        ...

    async def many(self, kind: str, numbers: Sequence[int]) -> object:
        """Send all in the quickest way there is."""
        ...

    async def later(self, kind: str, numbers: Sequence[int], due: float) -> object:
        """Send tasks that are due at a unix second."""
        ...


Opened = Callable[[], AbstractAsyncContextManager[Producer]]
Run = Callable[[Callable[[], Awaitable[Any]]], Any]


def main() -> None:
    """Do what the arguments say with the module that the first one names.

    The module has `opened`, which gives a Producer, `commands`, the workers' command lines, and `run` where its event
    loop is not asyncio's.
    """
    # Imported, never run itself, because some queues name tasks by their module.
    module = importlib.import_module(sys.argv[1])
    run: Run = getattr(module, "run", _by_asyncio)
    match sys.argv[2:]:
        case ["commands"]:
            print(json.dumps(module.commands()), flush=True)
        case ["enqueue", how, kind, count, *more]:
            told = run(lambda: _enqueue(module.opened, how, kind, int(count), *map(float, more)))
            print(json.dumps(told), flush=True)
        case words:
            raise SystemExit(f"not understood: {words}")


def _by_asyncio(function: Callable[[], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        return await function()

    return asyncio.run(main())


def script(name: str, *words: object) -> list[str]:
    """The command *name* of this environment."""
    return [str(Path(sys.prefix, "bin", name)), *map(str, words)]


async def _enqueue(opened: Opened, how: str, kind: str, count: int, *more: float) -> dict[str, Any]:
    async with opened() as producer:
        if how == "probe":
            await producer.one(kind, PROBE)
            return {}
        if how != "due":
            # The first only opens connections.
            await producer.one(kind, 0)
        began = time.perf_counter()
        match how, more:
            case "bulk", ():
                await producer.many(kind, range(1, count))
            case "single", ():
                for number in range(1, count):
                    await producer.one(kind, number)
            case "paced", (rate,):
                return {"sent": await _paced(producer, kind, count, rate)}
            case "due", (due,):
                await producer.later(kind, range(count), due)
                return {"early": due - time.time()}
        return {"seconds": time.perf_counter() - began, "count": count - 1}


async def _paced(producer: Producer, kind: str, count: int, rate: float) -> list[int]:
    """The nanosecond at which each but the first was sent."""
    sent: list[int] = []
    began = time.monotonic()
    for number in range(1, count):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        sent.append(time.monotonic_ns())
        await producer.one(kind, number)
    return sent


if __name__ == "__main__":
    main()
