"""Workers forked from a template, and what keeps chicoryd from forking."""

import os
import signal

import pytest


def workers(daemon, **wanted):
    return [fact for fact in daemon.facts(what="start", **wanted) if fact["who"].startswith("worker")]


def test_workers_are_forked_and_yet_children_of_the_supervisor_and_alike_to_those_started_afresh(daemon):
    daemon.start().until_ready()

    status = daemon.status()
    assert status["start_method"] == "template"
    for fact in workers(daemon):
        assert fact["parent"] == daemon.process.pid
        assert fact["sid"] == fact["pid"]
        assert fact["title"] == fact["who"]
        assert fact["ignores_pipes"]
    assert daemon.command("stop").returncode == 0
    assert daemon.left() == []


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("thread", "1 more thread ran: 'busybody' (started in {fakes}, line "),
        ("socket", "a socket on 127.0.0.1:"),
    ],
)
def test_what_must_not_be_forked_is_named_once_and_workers_start_one_by_one(daemon, word, named):
    daemon.tell("import", word)

    daemon.start().until_ready(children=4)

    fakes = os.path.join(os.path.dirname(__file__), "fakes.py")
    (warning,) = [line for line in daemon.log().splitlines() if " WARNING " in line]
    assert named.format(fakes=fakes) in warning
    assert daemon.status()["start_method"] == "exec"
    assert [slot["slot"] for slot in daemon.status()["slots"]] == ["server", "scheduler", "worker-1", "worker-2"]
    assert daemon.command("stop").returncode == 0
    assert daemon.left() == []


def test_workers_start_one_by_one_when_the_settings_say_so(daemon):
    daemon.config.write_text('[supervisor]\nworkers = 2\nstart_method = "exec"\n')

    daemon.start().until_ready(children=4)

    assert "template" not in [slot["slot"] for slot in daemon.status()["slots"]]
    assert " WARNING " not in daemon.log()


def test_a_template_that_died_is_replaced_and_forks_again(daemon):
    daemon.start().until_ready()
    (template,) = [slot["pid"] for slot in daemon.status()["slots"] if slot["slot"] == "template"]

    os.kill(template, signal.SIGKILL)
    os.kill(workers(daemon, who="worker-1")[0]["pid"], signal.SIGKILL)

    daemon.until_noted(who="worker-1", what="ready", count=2)
    server, template, scheduler, first, second = [slot["restarts"] for slot in daemon.status()["slots"]]
    assert (server, template, scheduler, second) == (0, 1, 0, 0)
    # Where the worker's death is seen first, the dead template is asked once in vain.
    assert first in (1, 2)


def test_an_app_that_never_imports_in_the_template_ends_the_first_start_with_its_traceback_last(daemon):
    daemon.tell("import", "fails")

    daemon.start()

    assert daemon.wait() == 70
    assert "came up in 3 tries, giving up" in daemon.log()
    assert daemon.log().rstrip().endswith("RuntimeError: this app is broken")


@pytest.mark.parametrize("method", ["template", "exec"])
def test_a_worker_that_never_boots_ends_the_first_start_with_its_traceback_last(daemon, method):
    daemon.config.write_text(f'[supervisor]\nworkers = 1\nstart_method = "{method}"\n')
    daemon.tell("worker", "raises")

    daemon.start()

    assert daemon.wait() == 70
    _, last = daemon.log().split("chicoryd: stopped, exit 70\n")
    assert last.startswith("Traceback (most recent call last):")
    assert last.rstrip().endswith("RuntimeError: worker-1 has a bug")
    assert "last-words" not in os.listdir(daemon.state_dir)
