"""The fixtures, as pytest gives them to a project that has Chicory installed."""

import os
import subprocess
import sys

import pytest

APP = """
from chicory import Chicory

app = Chicory("redis://127.0.0.1:1/0")

@app.task(name="double")
async def double(x: int) -> int:
    return 2 * x

@app.task(name="fail")
async def fail() -> None:
    raise ValueError("no")
"""
TESTS = """
from datetime import UTC, datetime

import pytest
from shop import app, double, fail

pytestmark = pytest.mark.chicory(propagate=True, eager=False)

def test_a_queue(chicory_queues, chicory_clock):
    double.options(delay=60).send_sync(21)
    assert chicory_queues.app is app
    assert chicory_queues.drain_sync(within=59) == []
    chicory_clock.advance(1)
    assert [run.value for run in chicory_queues.drain_sync(within=0)] == [42]

def test_nothing_is_left_of_another_test(chicory_queues):
    assert chicory_queues.enqueued() == []

@pytest.mark.chicory(eager=True, clock=datetime(2027, 1, 1, tzinfo=UTC))
def test_options_of_the_nearest_mark_count(chicory_queues, chicory_clock):
    assert chicory_clock.now() == datetime(2027, 1, 1, tzinfo=UTC)
    with pytest.raises(ValueError, match="no"):
        fail.send_sync()

@pytest.mark.trio
async def test_trio(chicory_queues):
    await double.send(1)
    assert len(await chicory_queues.drain()) == 1

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
async def test_anyio(chicory_queues):
    await double.send(1)
    assert [run.value for run in await chicory_queues.drain()] == [2]
"""
UNNAMED = """
def test_an_app_that_nobody_named(chicory_queues): ...
"""
OVERRIDDEN = """
import pytest
import shop

@pytest.fixture
def chicory_app():
    return shop.app

def test_a_fixture_of_ones_own(chicory_queues):
    assert chicory_queues.app is shop.app
"""


def run_pytest(directory, *words):
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("CHICORY", "PYTEST"))}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-W",
        "error",
        "--strict-markers",
        *words,
    ]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, env=environ)


@pytest.fixture
def project(tmp_path):
    (tmp_path / "shop.py").write_text(APP)
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    return tmp_path


def test_fixtures_keep_the_messages_of_the_named_app_in_memory(project):
    (project / "test_shop.py").write_text(TESTS)
    (project / "test_own.py").write_text(OVERRIDDEN)

    done = run_pytest(project, "-o", "chicory_app=shop:app")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout


def test_an_app_that_nobody_named_is_asked_for(project):
    (project / "test_unnamed.py").write_text(UNNAMED)

    done = run_pytest(project)

    assert 'say chicory_app = "module:name" in pytest\'s settings' in done.stdout


def test_the_plugin_costs_nothing_where_it_is_not_used():
    code = (
        "import sys, pytest; before = set(sys.modules); import chicory.pytest_plugin; print(*set(sys.modules) - before)"
    )
    brought = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert {name for name in brought if name.startswith("chicory")} == {"chicory", "chicory.pytest_plugin"}
    assert not {"trio", "attrs", "msgspec", "asyncio"} & set(brought)
