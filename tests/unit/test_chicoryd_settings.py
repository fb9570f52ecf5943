"""The settings chicoryd reads for itself."""

from pathlib import Path

import pytest

from chicoryd.settings import SettingsError, load, locate


@pytest.fixture
def config(tmp_path):
    return tmp_path / "chicory.toml"


def test_an_empty_file_means_two_workers_on_the_embedded_broker(config):
    config.write_text("")

    settings = load(config, {})

    assert settings.workers == 2
    assert settings.embedded
    assert settings.state_dir == config.parent / ".chicory"
    assert (settings.grace, settings.shutdown_timeout, settings.boot_timeout) == (30, 40, 60)
    assert not settings.require_broker


def test_the_file_is_read_and_the_environment_has_the_last_word(config):
    config.write_text('[supervisor]\nworkers = 4\nboot_timeout = 9\n[broker]\ntype = "redis"\n')

    environ = {
        "CHICORY_SUPERVISOR_WORKERS": "7",
        "CHICORY_BROKER_TYPE": "EMBEDDED",
        "CHICORY_WORKER_REQUIRE_BROKER": "on",
    }
    settings = load(config, environ)

    assert (settings.workers, settings.boot_timeout) == (7, 9)
    assert settings.embedded
    assert settings.require_broker
    assert not load(config, {}).embedded
    assert load(config, {"CHICORY_SUPERVISOR_WORKERS": ""}).workers == 2


@pytest.mark.parametrize(
    ("text", "directory"),
    [
        ('[broker]\nstate_dir = "data"', "data"),
        ('[supervisor]\nstate_dir = "run"', "run"),
        ('[supervisor]\nstate_dir = "run"\n[broker]\nstate_dir = "data"', "run"),
    ],
)
def test_the_state_directory_is_the_brokers_unless_said_otherwise_and_lies_beside_the_file(config, text, directory):
    config.write_text(text)

    assert load(config, {}).state_dir == config.parent / directory


def test_the_log_lies_beside_the_file_and_does_not_change_while_the_daemon_runs(config):
    config.write_text('[log]\nfile = "logs/chicory.log"\nformat = "JSON"')

    settings = load(config, {})

    assert (settings.log_format, settings.log_file) == ("json", config.parent / "logs/chicory.log")
    assert dict(settings.plan("me", None, config).fixed)["log.file"] == str(settings.log_file)
    assert load(config, {"CHICORY_LOG_FILE": ""}).log_file is None


@pytest.mark.parametrize(
    ("text", "grace", "whole"),
    [
        ("[worker]\nshutdown_timeout = 100", 100, 110),
        ("[worker]\nshutdown_timeout = 100\ncancel_grace = 20", 100, 125),
        ("[worker]\nshutdown_timeout = 100\n[supervisor]\nshutdown_timeout = 60", 50, 60),
        ("[supervisor]\nshutdown_timeout = 3", 0, 3),
        ("[supervisor]\nshutdown_timeout = 300", 30, 300),
    ],
)
def test_workers_are_told_a_grace_that_ends_before_they_are_killed(config, text, grace, whole):
    config.write_text(text)

    settings = load(config, {})

    assert (settings.grace, settings.shutdown_timeout) == (grace, whole)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[supervisor\n", "chicory.toml"),
        ('[supervisor]\nworkers = "many"', "supervisor.workers = 'many'"),
        ("[supervisor]\nboot_timeout = []", "supervisor.boot_timeout = []"),
        ("supervisor = 3", "supervisor must be a table"),
    ],
)
def test_what_cannot_be_used_is_named(config, text, named):
    config.write_text(text)

    with pytest.raises(SettingsError) as caught:
        load(config, {})

    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(config):
    with pytest.raises(SettingsError, match=r"cannot read .*chicory\.toml: No such file"):
        load(config, {})


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[supervisor]\nworkers = \nstate_dir = "here"\n', "here"),
        ('[supervisor]\nstate_dir = "here"\n[broker\nstate_dir = "there"\n', "here"),
        ('[broker] # mine\nstate_dir = "here" # and not\n[[', "here"),
        ("[supervisor\n", ".chicory"),
        (None, ".chicory"),
    ],
)
def test_the_state_directory_is_found_in_what_is_left_of_a_broken_file(config, text, found):
    if text is not None:
        config.write_text(text)

    where, problem = locate(config, {})

    assert where == config.parent / found
    assert str(config) in str(problem)
    assert locate(config, {"CHICORY_SUPERVISOR_STATE_DIR": "/there"})[0] == Path("/there")


def test_of_a_file_that_is_right_nothing_is_said(config):
    config.write_text('[broker]\nstate_dir = "/here"\n')

    assert locate(config, {}) == (Path("/here"), None)
