"""A daemon whose app has a lifespan and tasks on asyncio: what its workers open, and what a reload refuses."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from chicory import TaskMessage
from chicory.app import Chicory
from tests.servers import running_server

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0

TASKS = """
    import asyncio, os
    from chicory import Chicory, TaskContext

    async def lifespan(app):
        if os.path.exists("broken"):
            raise OSError("no such database")
        loop = asyncio.get_running_loop()
        note(f"begun {os.getpid()}")
        yield loop
        await asyncio.sleep(0)
        note(f"ended {os.getpid()}")

    def note(text):
        with open("notes", "a") as file:
            file.write(text + "\\n")

    app = Chicory(flavor="asyncio", lifespan=lifespan)

    @app.task(name="where")
    async def where(context: TaskContext):
        await asyncio.sleep(0)
        return [os.getpid(), context.state is asyncio.get_running_loop()]
"""


class Place:
    def __init__(self, home, url):
        self.home = home
        self.url = url
        self.log = home / "log"
        (home / "tasks.py").write_text(textwrap.dedent(TASKS))
        (home / "chicory.toml").write_text(
            f'app = "tasks:app"\n[broker]\ntype = "redis"\n[broker.redis]\nurl = "{url}"\nblock_ms = 500\n'
            "[supervisor]\nworkers = 2\n"
        )
        clean = {key: value for key, value in os.environ.items() if not key.startswith("CHICORY")}
        self.environ = {**clean, "PYTHONPATH": f"{ROOT}:{ROOT}/supervisor"}
        self.process = None

    def command(self, *words):
        command = [sys.executable, "-m", "chicoryd", *words, "-c", str(self.home / "chicory.toml")]
        return subprocess.run(
            command, env=self.environ, cwd=self.home, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "chicoryd", "start", "-c", str(self.home / "chicory.toml")],
                env=self.environ,
                cwd=self.home,
                stderr=log,
            )

    def notes(self, word):
        path = self.home / "notes"
        lines = path.read_text().splitlines() if path.exists() else []
        return {int(line.split()[1]) for line in lines if line.startswith(word)}

    def until(self, fact):
        end = time.monotonic() + PATIENCE
        while not (found := fact()):
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.01)
        return found


@pytest.fixture
def place(tmp_path):
    with running_server("redis") as server:
        made = Place(tmp_path, server.url)
        yield made
        if made.process is not None and made.process.poll() is None:
            made.process.terminate()
            made.process.wait(PATIENCE)


async def test_each_worker_lives_within_it_and_a_reload_that_breaks_it_is_refused(place):
    place.start()
    place.until(lambda: "chicoryd: ready after" in place.log.read_text())
    # It is ready with the first of its workers.
    place.until(lambda: len(place.notes("begun")) == 2)
    begun = place.notes("begun")

    async with Chicory(place.url) as app:
        pids = set()
        for _ in range(10):
            message = TaskMessage(name="where")
            await app.publish(message)
            pid, on_its_loop = await app.result_of(message).get(timeout=PATIENCE)
            pids.add(pid)
            assert on_its_loop
    assert pids <= begun

    (place.home / "broken").touch()
    place.command("reload")
    place.until(lambda: "reload failed" in place.log.read_text())
    status = json.loads(place.command("status", "--json").stdout)

    assert "the asyncio lifespan of the app failed at its start: OSError: no such database" in status["reload_failed"]
    assert {slot["pid"] for slot in status["slots"] if slot["slot"].startswith("worker")} == begun
    assert place.notes("ended") == set()

    assert place.command("stop").returncode == 0
    assert place.notes("ended") == begun
