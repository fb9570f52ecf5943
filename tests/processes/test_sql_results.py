"""A real worker between a Redis that holds its messages and a PostgreSQL that holds its results."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import trio

from chicory import TaskMessage
from chicory.config import load_config
from chicory.loading import import_app
from chicory.types import TaskState
from tests.databases import PASSWORD, running_postgres
from tests.servers import running_server

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0
MANY = 200

TASKS = """
    from chicory import Chicory, RetryPolicy

    app = Chicory(retry_policy=RetryPolicy(max_retries=0))

    @app.task(name="double")
    async def double(x):
        return 2 * x

    @app.task(name="fail")
    async def fail():
        raise ValueError("as it should")
"""


@pytest.fixture
def database():
    with running_postgres() as running:
        yield running


@pytest.fixture
def home(tmp_path, database, monkeypatch):
    """A directory with an app in it, whose settings are in force here too; the secret is in a file of its own."""
    with running_server("redis") as broker:
        (tmp_path / "tasks.py").write_text(textwrap.dedent(TASKS))
        (tmp_path / "secret").write_text(database.url)
        (tmp_path / "secret").chmod(0o600)
        (tmp_path / "chicory.toml").write_text(
            f'app = "tasks:app"\n[broker]\ntype = "redis"\n[broker.redis]\nurl = "{broker.url}"\nblock_ms = 500\n'
            f'[backend.sql]\nurl_file = "{tmp_path}/secret"\n[log]\nfile = "log"\n'
        )
        for name in [name for name in os.environ if name.startswith("CHICORY")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("CHICORY_CONFIG", str(tmp_path / "chicory.toml"))
        yield tmp_path


@pytest.fixture
def start(home):
    """Starts the worker; what it says is in the file `log`."""
    processes = []

    def worker():
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "chicoryd.child", "chicory.cli:main", "worker", "tasks:app"],
                cwd=home,
                env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/supervisor"},
                stdin=subprocess.DEVNULL,
            )
        )
        return processes[-1]

    yield worker
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
async def app(home, monkeypatch):
    monkeypatch.chdir(home)
    monkeypatch.syspath_prepend(str(home))
    monkeypatch.delitem(sys.modules, "tasks", raising=False)
    async with import_app(load_config().app) as app:
        yield app
    sys.modules.pop("tasks", None)


async def publish(app):
    return await app.publish_many([TaskMessage(name="double", args=[n]) for n in range(MANY)])


async def values(results):
    with trio.fail_after(PATIENCE):
        return [await result.get() for result in results]


async def said(home, text):
    """Wait until the worker has said *text*; a file cannot tell, so it is looked at again and again."""
    log = home / "log"
    with trio.fail_after(PATIENCE):
        while not (log.exists() and text in log.read_text()):
            await trio.sleep(0.01)


async def test_a_database_that_is_killed_while_a_worker_works_loses_nothing(app, home, start, database):
    doubled = [2 * n for n in range(MANY)]
    first = await publish(app)
    # The worker finds the database gone, and has results to store already.
    database.kill()
    worker = start()
    await said(home, f"the broker fails, trying on until it answers: postgresql://127.0.0.1:{database.port}/postgres: ")
    waiting = await app.broker.get_queue_sizes()
    assert waiting.ready + waiting.delivered == MANY
    assert worker.poll() is None

    database.start()
    assert await values(first) == doubled

    # In the middle of its work.
    second = await publish(app)
    database.kill()
    database.start()
    assert await values(second) == doubled

    failed = app.result_of(message := TaskMessage(name="fail"))
    await app.publish(message)
    with trio.fail_after(PATIENCE):
        record = await failed.wait()
    assert (record.state, record.failure.message) == (TaskState.DEAD_LETTERED, "as it should")

    worker.send_signal(signal.SIGTERM)
    assert worker.wait(PATIENCE) == 0
    counts = await app.broker.counters("default")
    assert counts["done"] + counts["failed"] + counts["dead"] == counts["published"] == 2 * MANY + 1
    log = (home / "log").read_text()
    assert PASSWORD not in log
    assert "Traceback" not in log
