"""Tasks in child processes, which are killed."""

import logging
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import trio

from chicory import RemoteTaskError, RetryPolicy, TaskCancelled
from chicory.errors import UsageError
from chicory.testing import memory_app, running_worker
from chicory.worker.worker import Worker
from tests.trio import killable

PATIENCE = 30
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
async def patience():
    with trio.fail_after(PATIENCE):
        yield


async def failure(task, *args, **options):
    with pytest.raises(RemoteTaskError) as caught:
        await (await task.options(**options).delay(*args)).get()
    return caught.value.failure


def alive(pid):
    """Whether *pid* runs, or a thread of it does that may still hold files; a zombie does not."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
        return len(threads) > 1 or Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def gone(pid):
    while alive(pid):
        await trio.sleep(0.01)


async def appears(path):
    while not path.exists():
        await trio.sleep(0.01)
    return [int(word) for word in path.read_text().split()]


async def test_a_child_is_kept_until_it_has_to_be_killed():
    async with running_worker(killable.app):
        pid = await (await killable.where.delay()).get()

        assert pid != os.getpid()
        refused = await failure(killable.refuse, "no")
        assert (refused.type, refused.message) == ("ValueError", "no")
        assert refused.traceback.count("File ") == 1
        assert (await failure(killable.unserialisable)).type == "PayloadError"
        assert await (await killable.where.delay()).get() == pid
        assert (await failure(killable.spin, timeout=0.2)).type == "TaskTimeout"
        assert not alive(pid)
        pid = await (await killable.where.delay()).get()
    assert not alive(pid)


async def test_a_cancelled_one_is_killed_with_what_it_has_started(tmp_path):
    async with running_worker(killable.app):
        result = await killable.spin.delay(str(tmp_path / "pids"))
        child, grandchild = await appears(tmp_path / "pids")
        assert await result.cancel()
        with pytest.raises(TaskCancelled):
            await result.get()
        await gone(child)
        await gone(grandchild)


async def test_the_end_of_the_grace_kills(tmp_path):
    async with running_worker(killable.app, shutdown_timeout=0.1) as worker:
        await killable.spin.delay(str(tmp_path / "pids"))
        pids = await appears(tmp_path / "pids")
        worker.stop()
    for pid in pids:
        await gone(pid)
    await killable.app.broker.purge_queue("default")


async def test_a_child_that_dies_is_the_failure_of_its_task_alone():
    async with running_worker(killable.app):
        left = await failure(killable.leave, 3)
        crashed = await failure(killable.crash)

        assert (left.type, left.message) == ("ProcessDied", "the task's process died of exit code 3")
        assert (crashed.type, crashed.message) == ("ProcessDied", "the task's process died of SIGSEGV")
        pid = await (await killable.where.delay()).get()
        os.kill(pid, signal.SIGKILL)
        await gone(pid)
        assert await (await killable.where.delay()).get() != pid


async def test_the_context_is_there():
    ask = killable.ask.options(headers={"a": "b"}, timeout=PATIENCE)
    async with running_worker(killable.app):
        for how, retries in (("plain", 0), ("retry", 1)):
            result = await ask.delay(how)
            assert await result.get() == [result.id, retries, 2, "b", True]

        failed = await failure(killable.ask, "fail")
        assert failed.message == "for good"
        stateless = await failure(killable.ask, "state", retry_policy=RetryPolicy(max_retries=0))
        assert "nor ever is for process=True" in stateless.message


async def test_it_may_ask_to_run_again_later(tmp_path):
    once = str(tmp_path / "once")
    async with running_worker(killable.app):
        result = await killable.ask.options(headers={"a": once}, timeout=PATIENCE).delay("snooze")

        assert await result.get() == [result.id, 0, 2, once, True]


async def test_what_it_tells_the_log_is_in_the_log_of_the_worker(caplog):
    caplog.set_level(logging.INFO)
    async with running_worker(killable.app):
        await (await killable.tell.delay(0xD800)).wait()

    told = [record for record in caplog.records if record.name == "killable"]
    assert [(record.levelname, record.getMessage()) for record in told] == [
        ("INFO", "100 % of \\ud800"),
        ("ERROR", "beside"),
    ]
    assert told[1].process != os.getpid()
    assert told[1].filename == "killable.py"
    assert "ValueError: \\ud800" in told[1].stack_info


async def test_without_pidfds_a_worker_says_in_one_line_that_it_cannot_run_it(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")

    with pytest.raises(UsageError, match=r"^task '.*where': process=True needs pidfds, .* leave out process=True$"):
        await Worker(killable.app).run()


async def test_what_a_child_cannot_find_fails_in_one_line():
    app = memory_app()

    @app.task(process=True)
    def hidden() -> None: ...

    async with running_worker(app):
        failed = await failure(hidden)

    assert failed.type == "UsageError"
    assert "define it at the top of a module" in failed.message


async def test_it_is_for_sync_functions_alone():
    app = memory_app()

    with pytest.raises(UsageError, match="process=True is for sync functions"):

        @app.task(process=True)
        async def waits() -> None: ...

    with pytest.raises(UsageError, match="process=True is for sync functions"):

        @app.task(process=True, flavor="asyncio")
        def flavored() -> None: ...


SCRIPT = """
    import sys
    import trio
    from chicory.testing import memory_app, running_worker
    from tests.trio.killable import app, spin

    async def main():
        async with running_worker(app):
            await spin.delay(sys.argv[1])
            await trio.sleep_forever()

    if __name__ == "__main__":
        trio.run(main)
"""


async def test_a_worker_that_is_killed_takes_its_children_along(tmp_path):
    script = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path / "pids")]
    with subprocess.Popen(script, cwd=ROOT) as worker:
        try:
            pids = await appears(tmp_path / "pids")
        finally:
            worker.kill()
    for pid in pids:
        await gone(pid)
