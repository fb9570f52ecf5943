"""New code and new settings in a daemon that goes on working."""

import os
import signal
import time
from pathlib import Path

import pytest


def working(daemon):
    """Pids of the workers that are ready, by slot."""
    slots = daemon.status()["slots"]
    return {s["slot"]: s["pid"] for s in slots if s["slot"].startswith("worker-") and s["state"] == "ready"}


def descriptors(daemon):
    return sorted(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def test_a_reload_loads_new_code_and_new_settings_and_replaces_everybody_but_the_server(daemon):
    daemon.start().until_ready()
    before = daemon.status()
    open_before = descriptors(daemon)
    daemon.tell("code", "new")
    daemon.config.write_text("[supervisor]\nworkers = 3\n")

    answer = daemon.command("reload")

    assert (answer.returncode, answer.stdout) == (0, "generation 2 has taken over\n"), answer.stderr
    daemon.until(lambda: len(working(daemon)) == 3 and daemon.status()["summary"] == "generation 2, 3/3 workers ready")
    starts = [fact for fact in daemon.facts(what="start") if fact["who"].startswith("worker")]
    assert [fact["code"] for fact in starts] == ["", "", "new", "new", "new"]
    daemon.until(lambda: len(daemon.facts(who="scheduler", what="ready")) == 2)
    assert len(daemon.facts(who="server", what="ready")) == 1
    after = daemon.status()
    assert after["generation"] == 2
    assert not {s["pid"] for s in after["slots"][1:]} & {s["pid"] for s in before["slots"][1:]}
    daemon.until(lambda: len(descriptors(daemon)) == len(open_before) + 1)  # of one worker more


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("check", "fake check: refused"),
        ("import", "template.new of generation 2 exited with status 1"),
        ("boot", "worker-1.new of generation 2 exited with status 1"),
        ("toml", "chicory.toml"),
        ("state", "supervisor.state_dir cannot change while the daemon runs; stop it and start it anew"),
        ("broker", "broker.type = embedded cannot change"),
    ],
)
def test_what_is_wrong_with_the_new_keeps_the_old(daemon, how, why):
    daemon.start().until_ready()
    before = working(daemon)
    settings = {"toml": "[supervisor", "state": '[supervisor]\nstate_dir = "x"', "broker": '[broker]\ntype = "redis"'}
    if how in settings:
        daemon.config.write_text(settings[how])
        ask = lambda: daemon.signal(signal.SIGHUP)  # noqa: E731  # a broken file keeps the command line away, too
    else:
        daemon.tell(*{"check": ("check", "78"), "import": ("import", "fails"), "boot": ("worker", "fails")}[how])
        ask = lambda: daemon.command("reload")  # noqa: E731
    answer = ask()

    daemon.until(lambda: "reload failed, generation 1 stays" in daemon.log())
    assert why in daemon.log()
    if answer is not None:
        assert answer.returncode == 1
        assert why in answer.stderr
    daemon.config.write_text("[supervisor]\nworkers = 2\n")
    daemon.until(lambda: not daemon.status()["reload"])
    daemon.until(lambda: why in (daemon.status()["reload_failed"] or ""))
    assert working(daemon) == before
    assert daemon.command("stop").returncode == 0


def test_a_hundred_hangups_in_a_second_are_at_most_two_reloads_and_leak_nothing(daemon):
    daemon.start().until_ready()
    open_before = descriptors(daemon)

    begun = time.monotonic()
    for number in range(100):
        daemon.signal(signal.SIGHUP)
        time.sleep(max(begun + number * 0.009 - time.monotonic(), 0))
    daemon.until(lambda: "has taken over" in daemon.log() and daemon.status()["reload"] is None)
    daemon.until(lambda: len(working(daemon)) == 2 and len(descriptors(daemon)) == len(open_before))

    assert daemon.log().count("reloading, generation") <= 2
    assert "WARNING" not in daemon.log()
    assert daemon.command("stop").returncode == 0


def test_children_read_the_settings_that_are_in_force_and_not_those_that_are_being_written(daemon):
    daemon.start().until_ready()
    before = daemon.config.read_text()

    daemon.config.write_text(before + "# new\n")
    os.kill(daemon.facts(who="scheduler", what="ready")[0]["pid"], signal.SIGKILL)
    daemon.until_noted(who="scheduler", what="ready", count=2)
    assert daemon.command("reload").returncode == 0
    daemon.until_noted(who="scheduler", what="ready", count=3)

    read = [start["settings"] for start in daemon.facts(who="scheduler", what="start")]
    assert read == [before, before, before + "# new\n"]


def test_a_stop_in_the_middle_of_a_reload_is_a_stop(daemon):
    daemon.start().until_ready()
    daemon.tell("worker", "mute")
    daemon.signal(signal.SIGHUP)
    daemon.until(lambda: "worker-1.new started" in daemon.log())

    daemon.signal(signal.SIGTERM)

    assert daemon.wait() == 0
    assert daemon.left() == []
    assert not Path(daemon.state_dir / "chicoryd.sock").exists()
