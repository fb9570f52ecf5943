"""Every block of code in the documents runs, against private servers where it needs one."""

import os
import subprocess
import sys

import pytest
import trio

from chicory import Chicory, TaskMessage, Worker
from chicory.config import load_config
from chicory.types import Undecodable
from tests.pages import ROOT, blocks, check_command, commands, links, run
from tests.servers import running_server

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# Its blocks are the files of a program and of its tests.
TESTING = ROOT / "docs" / "testing.md"
BLOCKS = [block for page in PAGES if page != TESTING for block in blocks(page, "bash", "console", "toml")]
REDIS = ROOT / "docs" / "redis.md"
CALLING = ROOT / "docs" / "calling.md"
RUNNABLE = sorted({*(ROOT / "docs").glob("*.md")} - {CALLING, TESTING})


@pytest.fixture(scope="module")
def server():
    with running_server("redis") as server:
        yield server


@pytest.fixture
def settings(server, monkeypatch, tmp_path):
    """Every app that asks for Redis gets the private server, whatever host and port a page names."""
    for name in [name for name in os.environ if name.startswith("CHICORY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CHICORY_BROKER_REDIS_URL", server.url)
    monkeypatch.chdir(tmp_path)
    with server.client() as client:
        client.flushall()


def namespace():
    return {"__name__": "tasks"}


def block_with(text):
    (found,) = [block for block in blocks(REDIS, "python") if text in block.text]
    return found


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.name)
async def test_the_python_of_a_page_runs_from_top_to_bottom(page, settings):
    names = namespace()

    for block in blocks(page, "python"):
        await run(block, names)
        if isinstance(app := names.get("app"), Chicory):
            await app.aclose()


async def test_every_kind_of_caller_on_the_page_gets_its_result(settings, capsys):
    names = namespace()
    define, *programs = blocks(CALLING, "python")
    await run(define, names)
    app = names["app"]

    async with app, trio.open_nursery() as nursery:
        nursery.start_soon(Worker(app).run)
        for block in programs:
            # Each brings its own loop, or none.
            await trio.to_thread.run_sync(exec, compile(block.text, str(block), "exec"), names)
        nursery.cancel_scope.cancel()
    await trio.to_thread.run_sync(app.close)

    told = capsys.readouterr().out.splitlines()
    assert told[:4] == ["42", str([*range(1, 11)]), "42", "11"]
    assert told[4] in ("done: 42", "not yet")
    assert told[5] == "[3, 4, 5]"
    assert told[9] == "cancelled"
    assert sorted(line.split()[1] for line in told[6:9]) == ["3", "4", "5"]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_what_a_page_tells_to_type_exists(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if block.language == "toml":
        (tmp_path / "chicory.toml").write_text(block.text)
        assert load_config(tmp_path / "chicory.toml", environ={})
        return

    assert commands(block)
    for words in commands(block):
        check_command(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_links_to_what_there_is(page):
    assert [target for target in links(page) if not target.exists()] == []


async def test_what_the_page_on_redis_says_of_dead_letters_holds(settings, capsys):
    names = namespace()
    for text in ("async def my_task", "worker_config ="):
        await run(block_with(text), names)
    app, config = names["app"], names["worker_config"]
    await app.broker.publish(TaskMessage("abc123", name="nobody.knows.me", retries=2))
    await Worker(app, config, burst=True).run()

    await run(block_with("get_dlq_messages"), names)
    told = capsys.readouterr().out
    await run(block_with("replay_from_dlq"), names)

    assert "Task: nobody.knows.me" in told
    assert "Error: " in told
    assert not isinstance(names["msg"].original_message, Undecodable)
    assert names["success"] is True
    assert await app.broker.get_dlq_count("default") == 0

    await Worker(app, config, burst=True).run()
    await run(block_with("purge_dlq"), names)

    assert names["success"] is True
    assert names["count"] == 0
    assert "Deleted 0 messages from DLQ" in capsys.readouterr().out
    await app.aclose()


async def test_what_the_page_on_schedules_shows_holds(settings, autojump_clock, capsys):
    names, page = namespace(), ROOT / "docs" / "schedules.md"
    for block in blocks(page, "python"):
        await run(block, names)
    refusal = capsys.readouterr().out

    await names["test_it_beats_once_a_minute"]()

    assert f"# {refusal.strip()}" in page.read_text()


def test_the_tests_on_the_page_about_testing_pass(tmp_path):
    for block in blocks(TESTING, "python"):
        name = block.text.splitlines()[0].removeprefix("# ")
        (tmp_path / name).write_text(block.text)
    (settings,) = [block.text for block in blocks(TESTING, "toml")]
    (tmp_path / "pyproject.toml").write_text(settings)

    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=stripped())

    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 passed" in done.stdout


def stripped():
    """An environment with nothing about Chicory or pytest in it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("CHICORY", "PYTEST"))}
