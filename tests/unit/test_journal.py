"""What the logging module is told goes into the log."""

import json
import logging
import os
import signal

import attrs
import pytest

from chicory.config import ChicoryConfig, LogConfig
from chicory.errors import ConfigError
from chicory.journal import Journal, Report, reopen_log, start_logging
from chicoryd.log import Log


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def told(path):
    """A logger of a journal, and what it has written."""
    log = Log("json", path, consumer="host:boot:sup:worker-1:1")
    logger = logging.Logger("tasks")
    logger.addHandler(Journal(log))
    yield logger, lambda: [json.loads(line) for line in path.read_text().splitlines()]
    log._sink.close()


def test_a_record_becomes_a_line(told):
    logger, lines = told

    logger.warning("%d tasks", 3)

    (line,) = lines()
    assert line.pop("ts")
    assert line == {
        "level": "WARNING",
        "logger": "tasks",
        "pid": os.getpid(),
        "consumer": "host:boot:sup:worker-1:1",
        "message": "3 tasks",
    }


def test_an_exception_brings_its_traceback(told):
    logger, lines = told

    try:
        raise ValueError("oops")
    except ValueError:
        logger.exception("it failed")

    (line,) = lines()
    assert line["message"] == "it failed"
    assert line["exc"].startswith("Traceback")
    assert line["exc"].endswith("ValueError: oops\n")


def test_a_report_has_details_here_and_with_the_handlers_of_others(told, caplog):
    logger, lines = told
    logger.addHandler(caplog.handler)

    logger.error(Report("100% stuck", "at this\nand that"))

    (line,) = lines()
    assert (line["message"], line["detail"]) == ("100% stuck", "at this\nand that")
    assert caplog.messages == ["100% stuck\nat this\nand that"]


def test_a_record_that_cannot_be_formatted_says_where_it_came_from(told, capsys):
    logger, lines = told

    logger.info("%d tasks", "three")

    (line,) = lines()
    assert __file__ in line["message"]
    assert "TypeError" in line["exc"]
    assert capsys.readouterr().err == ""


@pytest.fixture
def no_handler():
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_a_file_that_cannot_be_opened_is_a_wrong_setting(tmp_path, monkeypatch, no_handler):
    config = ChicoryConfig(log=LogConfig(file=str(tmp_path)))
    monkeypatch.delenv("CHICORYD_LIFELINE", raising=False)

    with pytest.raises(ConfigError, match=rf"log\.file: cannot open {tmp_path}: Is a directory; set it to a file"):
        start_logging(config)


def test_under_chicoryd_a_file_that_cannot_be_opened_is_no_reason_not_to_work(tmp_path, monkeypatch, no_handler):
    config = ChicoryConfig(log=LogConfig(file=str(tmp_path)))
    monkeypatch.setenv("CHICORYD_LIFELINE", "3")

    start_logging(config)


def test_the_signal_that_reopens_ends_nobody(path, monkeypatch, no_handler):
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    config = ChicoryConfig()

    start_logging(attrs.evolve(config, log=LogConfig(file=str(path))))

    assert signal.getsignal(signal.SIGUSR1) is reopen_log
