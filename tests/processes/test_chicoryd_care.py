"""Hung workers, a supervisor that stood still, and what an operator may ask for."""

import json
import os
import re
import signal
import time

import pytest

IMPATIENT = "[supervisor]\nworkers = 2\nhang_timeout = 0.6\n[worker]\nheartbeat_interval = 0.1\n"


def slot(daemon, name):
    return next((slot for slot in daemon.status()["slots"] if slot["slot"] == name), None)


def test_a_worker_that_is_silent_is_aborted_and_then_killed_and_the_others_are_not(daemon):
    daemon.config.write_text(IMPATIENT)
    daemon.tell("worker", "beats")
    daemon.tell("scheduler", "beats")
    daemon.start().until_ready()
    (first,) = daemon.facts(who="worker-1", what="ready")

    os.kill(first["pid"], signal.SIGSTOP)  # even SIGABRT does not reach it then

    daemon.until_noted(who="worker-1", what="ready", count=2)
    log = daemon.log()
    assert re.search(r"worker-1, pid \d+, has not beaten for \d s: aborting it", log)
    assert re.search(r"worker-1, pid \d+, has not beaten for \d s: killing it", log)
    assert slot(daemon, "worker-2")["restarts"] == 0
    assert slot(daemon, "scheduler")["restarts"] == 0


def test_after_it_was_stopped_itself_nobody_is_killed(daemon):
    daemon.config.write_text(IMPATIENT)
    daemon.tell("worker", "beats")
    daemon.tell("scheduler", "beats")
    daemon.start().until_ready()
    everybody = [daemon.process.pid, *daemon.pids()]

    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(1.5)
    for pid in everybody:
        os.kill(pid, signal.SIGCONT)

    beats = len(daemon.facts(what="beats"))
    daemon.until(lambda: len(daemon.facts(what="beats")) > beats + 4)
    assert "stood still" in daemon.log()
    assert "aborting" not in daemon.log()
    assert {slot["restarts"] for slot in daemon.status()["slots"]} == {0}


def test_workers_are_added_taken_away_replaced_and_quietened(daemon):
    daemon.start().until_ready()

    assert daemon.command("scale", "3").returncode == 0
    daemon.until(lambda: (slot(daemon, "worker-3") or {}).get("state") == "ready")
    daemon.signal(signal.SIGTTOU)
    daemon.until(lambda: slot(daemon, "worker-3") is None)
    assert daemon.command("restart", "worker-2").stdout == "worker-2 is being replaced\n"
    daemon.until(lambda: slot(daemon, "worker-2")["restarts"] == 1 and not slot(daemon, "worker-2.old"))
    assert daemon.command("quiet").returncode == 0
    daemon.until(lambda: len(daemon.facts(what="heard", message={"t": "quiet"})) == 2)
    assert daemon.command("resume").returncode == 0
    daemon.until(lambda: len(daemon.facts(what="heard", message={"t": "resume"})) == 2)
    refused = daemon.command("restart", "worker-9")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "there are server, scheduler, worker-1, worker-2" in refused.stderr


@pytest.mark.parametrize("how", ["command", "signal"])
def test_a_dump_has_a_line_for_each_slot_and_reaches_the_workers(daemon, how):
    daemon.start().until_ready()

    if how == "command":
        assert daemon.command("dump").returncode == 0
    else:
        daemon.signal(signal.SIGUSR2)

    daemon.until_noted(what="heard", message={"t": "dump"}, count=2)
    dumped = [json.loads(line.partition("chicoryd: ")[2]) for line in daemon.log().splitlines() if '{"slot"' in line]
    assert [each["slot"] for each in dumped] == ["server", "template", "scheduler", "worker-1", "worker-2"]


def test_health_tells_life_from_readiness(daemon):
    assert daemon.command("health").returncode == 3
    daemon.tell("scheduler", "mute")
    daemon.start()
    daemon.until(lambda: "worker-2 is ready" in daemon.log())

    assert daemon.command("health", "--live").returncode == 0
    answer = daemon.command("health", "--ready")
    assert answer.returncode == 1
    assert "no scheduler is ready" in answer.stdout


def test_a_stop_reports_what_became_of_each_worker(daemon):
    daemon.start().until_ready()

    answer = daemon.command("stop", "--json")

    told = json.loads(answer.stdout)
    assert told["exit"] == 0
    assert [(each["worker"], each["end"], each["counts"]) for each in sorted(told["workers"], key=str)] == [
        ("worker-1", "exited with status 0", {"finished": 5}),
        ("worker-2", "exited with status 0", {"finished": 5}),
    ]
