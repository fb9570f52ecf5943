"""What the README tells a newcomer to do, done: its files, its daemon, its sender."""

import os
import signal
import subprocess
import sys

import pytest

from tests.pages import ROOT, blocks

README = ROOT / "README.md"
PATIENCE = 60


@pytest.fixture
def project(tmp_path):
    (program,) = blocks(README, "python")
    (settings,) = blocks(README, "toml")
    (tmp_path / "tasks.py").write_text(program.text)
    (tmp_path / "chicory.toml").write_text(settings.text)
    return tmp_path


@pytest.fixture
def type_in(project):
    """Run a command in the project; what it printed and its exit code."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CHICORY")}
    # As in an environment where the project is not installed, and where the user has set nothing.
    environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "supervisor")])

    def start(*words, stdout=None, stderr=None, **more):
        return subprocess.Popen(
            [sys.executable, *words], cwd=project, env={**environ, **more}, text=True, stdout=stdout, stderr=stderr
        )

    return start


def finished(process):
    said, _ = process.communicate(timeout=PATIENCE)
    return said, process.returncode


def test_the_readme_works_as_written(type_in):
    daemon = type_in("-m", "chicoryd", "start", "-c", "chicory.toml", stderr=subprocess.PIPE)
    try:
        while True:
            line = daemon.stderr.readline()
            assert line, f"the daemon ended with {daemon.wait(PATIENCE)}"
            if "ready after" in line and "is ready" not in line:
                break

        sent = finished(type_in("tasks.py", stdout=subprocess.PIPE))
        stopped = finished(type_in("-m", "chicoryd", "stop", "-c", "chicory.toml", stdout=subprocess.PIPE))

        assert sent == ("42\n", 0)
        assert stopped[1] == 0
        assert daemon.wait(PATIENCE) == 0
    finally:
        if daemon.poll() is None:
            daemon.send_signal(signal.SIGTERM)
        daemon.communicate(timeout=PATIENCE)


def test_without_a_daemon_the_sender_is_told_how_to_start_one(type_in):
    impatient = {"CHICORY_BROKER_REDIS_PUBLISH_TIMEOUT": "0.1"}
    said, code = finished(type_in("tasks.py", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **impatient))

    assert code != 0
    assert "no chicoryd runs on" in said
    assert "chicoryd start -c" in said
