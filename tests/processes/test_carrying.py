"""What is carried, through a real server into a real worker, and from there on."""

import os
import subprocess
import sys
import textwrap
from contextvars import ContextVar
from pathlib import Path

import pytest

from chicory import Chicory
from tests.servers import running_server

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0

TASKS = """
    import asyncio, os
    from contextvars import ContextVar
    from chicory import Chicory

    tenant = ContextVar("tenant", default="nobody")
    locale = ContextVar("locale", default="en")
    app = Chicory(carry=[tenant, locale])

    @app.on_run
    async def translate(message, call_next):
        locale.set(f"of {tenant.get()}")
        return await call_next(message)

    @app.task(name="trio")
    async def on_trio():
        return [os.getpid(), tenant.get(), locale.get()]

    @app.task(name="asyncio", flavor="asyncio")
    async def on_asyncio():
        await asyncio.sleep(0)
        return [os.getpid(), tenant.get(), locale.get()]

    @app.task(name="thread")
    def thread():
        return [os.getpid(), tenant.get(), locale.get()]

    @app.task(name="process", process=True)
    def process():
        found = [os.getpid(), tenant.get(), locale.get()]
        tenant.set("leaked")
        return found

    @app.task(name="relay", process=True)
    def relay(name):
        return app.tasks[name].send_sync()
"""

tenant: ContextVar[str] = ContextVar("tenant")


@pytest.fixture(scope="module")
def server():
    with running_server("redis") as running:
        yield running


@pytest.fixture
def worker(server, tmp_path):
    (tmp_path / "carrying.py").write_text(textwrap.dedent(TASKS))
    (tmp_path / "chicory.toml").write_text(
        f'[broker]\ntype = "redis"\n[broker.redis]\nurl = "{server.url}"\nblock_ms = 500\n'
    )
    clean = {key: value for key, value in os.environ.items() if not key.startswith("CHICORY")}
    process = subprocess.Popen(
        [sys.executable, "-m", "chicoryd.child", "chicory.cli:main", "worker", "carrying:app"],
        cwd=tmp_path,
        env={**clean, "CHICORY_CONFIG": "chicory.toml", "PYTHONPATH": f"{ROOT}:{ROOT}/supervisor"},
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.terminate()
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err


async def test_it_reaches_tasks_of_every_kind_and_those_that_they_send(server, worker):
    kinds = ["trio", "asyncio", "thread", "process"]
    async with Chicory(server.url, carry=[tenant]) as app:
        carried = {}
        for name in ("ann", "bob"):
            before = tenant.set(name)
            carried[name] = [await app.remote(kind).delay() for kind in kinds]
            carried[name] += [app.result(await (await app.remote("relay").delay(kind)).get(PATIENCE)) for kind in kinds]
            tenant.reset(before)
        carried["nobody"] = [await app.remote(kind).delay() for kind in kinds]

        for name, results in carried.items():
            found = [await result.get(timeout=PATIENCE) for result in results]
            assert [rest for _, *rest in found] == [[name, f"of {name}"]] * len(results)
            assert [pid == worker.pid for pid, *_ in found] == [True, True, True, False] * (len(results) // 4)
