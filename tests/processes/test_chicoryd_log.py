"""The log of a daemon and its children: into one file, which is rotated under them."""

import json
import os
import re
import signal
from collections import defaultdict

import pytest

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (?:INFO|WARNING) (\S+): (.*)")
NUMBERED = re.compile(r"(\S+) number (\d+) (x*)")


@pytest.fixture
def logging(daemon, home):
    """A daemon whose scheduler and workers write numbered lines into its file as fast as they can."""
    daemon.log_path = home / "logs" / "chicory.log"
    daemon.log_path.parent.mkdir()
    daemon.config.write_text('[supervisor]\nworkers = 2\n[log]\nfile = "logs/chicory.log"\n')
    daemon.tell("worker", "logs")
    daemon.tell("scheduler", "logs")
    with (home / "stderr").open("ab") as stderr:
        daemon.start(stderr=stderr).until_ready()
    return daemon


def writers(path):
    """Who has written into the file at *path*."""
    return set(re.findall(r"fakes: \S+:(\S+):\d+ number", path.read_text())) if path.exists() else set()


EVERYBODY = {"scheduler", "worker-1", "worker-2"}


def rotate(daemon, number):
    daemon.log_path.rename(f"{daemon.log_path}.{number}")
    daemon.signal(signal.SIGUSR1)
    daemon.until_noted(number, who="worker-1", what="heard", message={"t": "reopen"})


def test_no_line_is_lost_or_torn_by_twenty_rotations(logging):
    for number in range(1, 21):
        rotate(logging, number)
        logging.until(lambda: writers(logging.log_path) == EVERYBODY)
    assert logging.command("stop").returncode == 0

    found = defaultdict(list)
    for path in logging.log_path.parent.iterdir():
        for line in path.read_text().splitlines():
            logger, message = LINE.fullmatch(line).groups()
            if logger == "fakes" and "begins" not in message:
                name, number, xs = NUMBERED.fullmatch(message).groups()
                assert len(xs) == int(number) % 300
                found[name].append(int(number))
    written = {fact["name"]: fact["numbers"] for fact in logging.facts(what="logged")}
    assert len(written) == 3
    assert {name: sorted(numbers) for name, numbers in found.items()} == {
        name: list(range(count)) for name, count in written.items()
    }
    assert (logging.home / "stderr").read_text() == ""


def test_whoever_forgets_to_say_so_is_followed_all_the_same(logging):
    logging.log_path.rename(f"{logging.log_path}.1")

    logging.until(lambda: writers(logging.log_path) == EVERYBODY)

    assert logging.facts(what="heard", message={"t": "reopen"}) == []


def test_where_there_is_no_new_file_the_old_one_goes_on_and_says_why(logging):
    moved = logging.log_path.parent.rename(logging.home / "elsewhere") / "chicory.log"

    logging.signal(signal.SIGUSR1)

    told = f"chicoryd.log: log.file: cannot open {logging.log_path}: No such file or directory"
    logging.until(lambda: moved.read_text().count(told) == 4)
    before = len(moved.read_text())
    logging.until(lambda: len(moved.read_text()) > before + 10_000)
    logging.log_path.parent.mkdir()
    logging.until(lambda: writers(logging.log_path) == EVERYBODY)


def test_the_signal_means_nothing_to_a_daemon_without_a_file(daemon):
    daemon.start().until_ready()

    daemon.signal(signal.SIGUSR1)

    daemon.until_noted(3, what="heard", message={"t": "reopen"})
    assert daemon.command("stop").returncode == 0


def test_all_write_json_of_the_same_fields(daemon, home):
    daemon.config.write_text('[supervisor]\nworkers = 2\n[log]\nformat = "json"\n')
    daemon.tell("worker-1", "logs")
    daemon.start()
    daemon.until(lambda: daemon.log().count("number") > 10)
    assert daemon.command("stop").returncode == 0

    lines = [json.loads(line) for line in daemon.log().splitlines()]
    by = {line["logger"]: line for line in lines}
    assert by.keys() == {"chicoryd", "fakes"}
    assert by["fakes"].keys() == {"ts", "level", "logger", "message", "pid", "consumer"}
    assert by["chicoryd"].keys() == {"ts", "level", "logger", "message", "pid"}
    assert by["chicoryd"]["pid"] == daemon.process.pid
    assert by["fakes"]["consumer"].split(":")[3] == "worker-1"
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["ts"]) for line in lines)


def test_the_file_may_lie_in_the_state_directory_which_is_made_at_the_first_start(daemon):
    daemon.config.write_text('[log]\nfile = ".chicory/chicory.log"\n')

    daemon.start()
    daemon.log_path = daemon.state_dir / "chicory.log"
    daemon.until_ready()

    assert daemon.command("stop").returncode == 0


def test_a_file_that_cannot_be_opened_is_named_at_the_start_and_nothing_starts(daemon, home):
    daemon.config.write_text('[log]\nfile = "missing/chicory.log"\n')

    daemon.start()

    assert daemon.wait() == os.EX_CONFIG
    assert daemon.log() == (
        f"chicoryd: log.file: cannot open {home / 'missing/chicory.log'}: No such file or directory; "
        "set it to a file that this user may write\n"
    )
    assert daemon.facts(what="start") == []
