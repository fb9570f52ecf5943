"""The command line's root and `chicory config`, as a shell sees them: output and exit code."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from chicory.cli import chicory, summary
from chicory.errors import (
    AppImportError,
    BrokerRefused,
    BrokerUnavailable,
    ConfigError,
    LeaseLost,
    PayloadError,
    TaskNotFoundError,
)
from chicory.exits import exit_code

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("CHICORY_CONFIG", "CHICORY_APP"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments, **environ):
        return CliRunner(env=environ).invoke(chicory, [*map(str, arguments)])

    return run


@pytest.fixture
def failing(monkeypatch):
    """`chicory config` that raises what it is told to."""

    def failing(error):
        @click.command()
        def config():
            raise error

        monkeypatch.setattr("chicory.cli.config.config", config)

    return failing


# The root


def test_help_imports_click_alone():
    probe = (
        "import sys\nfrom chicory.cli import main\nsys.argv = ['chicory', '--help']\n"
        "try: main()\n"
        "finally: print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)

    assert "config" in done.stdout
    assert "click" in done.stderr.split()
    assert not {"attrs", "trio", "typed_settings", "cattrs", "msgspec", "rich", "redis"} & set(done.stderr.split())


def test_a_summary_is_the_first_line_of_the_module():
    assert summary("config") == "Show the settings in force and where each comes from, or check a file."


def test_every_command_has_a_summary_and_can_be_imported():
    context = click.Context(chicory)

    for name in chicory.list_commands(context):
        assert summary(name)
        assert chicory.get_command(context, name) is not None


@pytest.mark.parametrize(
    "arguments", [["confg"], ["--nonsense"], ["config", "nonsense"], ["config", "show", "--nonsense"]]
)
def test_wrong_usage_exits_64(run, arguments):
    done = run(*arguments)

    assert done.exit_code == 64
    assert "Error: " in done.stderr


def test_an_unknown_command_is_told_the_nearest_one(run):
    assert "no command is called 'confg'; did you mean 'config'?" in run("confg").stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 78),
        (AppImportError("x"), 66),
        (TaskNotFoundError("x"), 64),
        (PayloadError("x"), 64),
        (BrokerUnavailable("x"), 69),
        (BrokerRefused("x"), 69),
        (LeaseLost("x"), 70),
        (ExceptionGroup("nursery", [ExceptionGroup("nursery", [BrokerRefused("x")])]), 69),
        (ZeroDivisionError("x"), 70),
        (ExceptionGroup("two", [BrokerRefused("x"), ConfigError("y")]), 70),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_end_in_documented_exit_codes(run, failing, error, code):
    failing(error)

    assert run("config").exit_code == code


def test_an_error_made_on_purpose_is_one_line_and_any_other_keeps_its_traceback(run, failing):
    failing(ConfigError("this is wrong:\n  mend it"))
    assert run("config").stderr == "Error: this is wrong: mend it\n"

    failing(ZeroDivisionError("oh"))
    assert "Traceback" in run("config").stderr


def test_the_nearest_class_decides_the_code():
    assert exit_code(ConfigError("x")) == 78
    assert exit_code(ValueError("x")) == 70


# chicory config check


def test_check_says_ok(run):
    done = run("config", "check", "-c", ROOT / "conf/chicory.toml")

    assert (done.exit_code, done.stdout) == (0, "ok\n")


def test_check_prints_a_line_for_each_problem_and_exits_78(run, tmp_path):
    path = tmp_path / "chicory.toml"
    path.write_text("[worker]\nconcurency = 3\nprefetch = -1\n")

    done = run("config", "check", "-c", path, CHICORY_WORKER_QUEU="x")

    assert done.exit_code == 78
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"{path}:2: ")
    assert lines[1].startswith(f"{path}:3: ")
    assert "CHICORY_WORKER_QUEU" in lines[2]
    assert done.stdout == ""


def test_check_of_a_file_that_is_not_there_exits_78(run):
    done = run("config", "check", "-c", "none.toml")

    assert (done.exit_code, done.stderr) == (78, "none.toml: cannot be read: No such file or directory\n")


def test_check_reads_the_file_the_environment_names(run, tmp_path):
    (tmp_path / "bad.toml").write_text("x = 1")

    assert run("config", "check", CHICORY_CONFIG="bad.toml").exit_code == 78


# chicory config show


def test_show_prints_every_setting_and_hides_secrets(run, tmp_path):
    path = tmp_path / "chicory.toml"
    path.write_text("[broker.redis]\npassword = 'canary'\n[worker]\nqueues = ['a']\n")

    for flags in ([], ["--origin"], ["--json"], ["--json", "--origin"]):
        done = run("config", "show", "-c", path, *flags, CHICORY_BROKER_REDIS_URL="redis://:canary@h")
        assert done.exit_code == 0
        assert "canary" not in done.output
        assert "**********" in done.stdout
        assert "worker.shutdown_timeout" in done.stdout


def test_show_origin_says_where_each_value_comes_from(run, tmp_path):
    path = tmp_path / "chicory.toml"
    path.write_text("[worker]\nprefetch = 2\n")

    done = run("config", "show", "--origin", "-c", path, CHICORY_WORKER_QUEUE="q")

    told = dict(line.split("  # ") for line in done.stdout.splitlines())
    origins = {setting.split(" = ")[0]: origin for setting, origin in told.items()}
    assert origins["worker.prefetch"] == f"file {path}:2"
    assert origins["worker.queue"] == "env CHICORY_WORKER_QUEUE"
    assert origins["worker.concurrency"] == "default"


def test_show_json_is_typed(run):
    done = run("config", "show", "--json", "--origin", CHICORY_WORKER_QUEUES="a,b")

    settings = json.loads(done.stdout)["settings"]
    assert settings["worker.queues"] == {"value": ["a", "b"], "origin": "env CHICORY_WORKER_QUEUES"}
    assert settings["worker.concurrency"]["value"] == 32
    assert settings["broker.redis.url"]["value"] is None
    assert settings["broker.type"]["value"] == "embedded"


def test_show_of_wrong_settings_is_one_line_and_78(run):
    done = run("config", "show", CHICORY_WORKER_CONCURRENCY="many")

    assert done.exit_code == 78
    assert done.stderr.startswith("Error: CHICORY_WORKER_CONCURRENCY = 'many'")
    assert done.stderr.count("\n") == 1


def test_show_tells_what_the_code_of_an_app_says(run, tmp_path, monkeypatch):
    (tmp_path / "shown_tasks.py").write_text(
        "from chicory.app import Chicory\n"
        "from chicory.config import ChicoryConfig, WorkerConfig\n"
        "app = Chicory(config=ChicoryConfig(worker=WorkerConfig(prefetch=0)))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    done = run("config", "show", "--origin", "--json", "--app", "shown_tasks:app", CHICORY_WORKER_PREFETCH="5")

    assert json.loads(done.stdout)["settings"]["worker.prefetch"] == {"value": 0, "origin": "code"}


def test_show_of_an_app_that_does_not_import_exits_66(run):
    assert run("config", "show", "--app", "there_is_no_such:app").exit_code == 66
