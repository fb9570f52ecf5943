"""chicoryd as it runs: real processes, real signals, children that do no work."""

import fcntl
import json
import os
import signal
import socket
import statistics
import time
from pathlib import Path

import pytest


def test_it_starts_everything_in_order_shows_it_and_stops_in_reverse(daemon):
    daemon.start().until_ready()

    status = daemon.status()
    assert [slot["slot"] for slot in status["slots"]] == ["server", "template", "scheduler", "worker-1", "worker-2"]
    assert {slot["state"] for slot in status["slots"]} == {"ready"}
    assert sorted(slot["pid"] for slot in status["slots"]) == sorted(daemon.pids())
    assert status["pid"] == daemon.process.pid
    assert (daemon.state_dir / "chicoryd.pid").read_text() == f"{daemon.process.pid}\n"
    assert (daemon.state_dir / "chicoryd.sock").stat().st_mode & 0o777 == 0o600
    table = daemon.command("status")
    assert table.returncode == 0
    assert "2/2 workers ready" in table.stdout

    stopped = daemon.command("stop")

    assert (stopped.returncode, stopped.stdout) == (0, "stopped, exit 0\n")
    assert daemon.wait() == 0
    starts = [fact["who"] for fact in daemon.facts(what="start")]
    assert starts[0] == "server"
    leaves = [fact["who"] for fact in daemon.facts(what="leaves")]
    assert sorted(leaves[:2]) == ["worker-1", "worker-2"]
    assert leaves[2:] == ["scheduler", "server"]
    assert daemon.left() == []
    assert [path.name for path in daemon.state_dir.iterdir()] == ["chicoryd.lock"]
    assert daemon.command("status").returncode == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_stops_it(daemon, number):
    daemon.start().until_ready()

    daemon.signal(number)

    assert daemon.wait() == 0
    assert daemon.left() == []


def test_with_another_broker_there_is_no_server(daemon):
    daemon.config.write_text('[supervisor]\nworkers = 1\n[broker]\ntype = "redis"\n')

    daemon.start().until_ready(children=3)

    assert [slot["slot"] for slot in daemon.status()["slots"]] == ["template", "scheduler", "worker-1"]


def test_a_killed_worker_is_replaced_at_once_and_the_scheduler_told(daemon):
    daemon.start().until_ready()
    (first,) = daemon.until_noted(who="worker-1", what="ready")

    os.kill(first["pid"], signal.SIGKILL)
    second = daemon.until_noted(who="worker-1", what="ready", count=2)[1]

    news = daemon.until(lambda: [f["message"] for f in daemon.facts(what="heard") if f["message"]["t"] == "dead"])
    assert news == [{"t": "dead", "consumer": first["name"], "why": "killed by SIGKILL"}]
    assert first["name"].rpartition(":")[::2] == (second["name"].rpartition(":")[0], "1")
    assert second["name"].endswith(":worker-1:2")
    slot = next(slot for slot in daemon.status()["slots"] if slot["slot"] == "worker-1")
    assert (slot["restarts"], slot["last_end"]) == (1, "killed by SIGKILL")
    assert daemon.status()["slots"][-1]["restarts"] == 0


def test_a_killed_worker_is_reaped_and_the_scheduler_told_within_a_twentieth_of_a_second(daemon):
    # A fresh one for each kill: the second death of a slot would have to wait for its back-off.
    daemon.config.write_text("[supervisor]\nworkers = 20\n")
    daemon.start().until_ready(children=23)

    waits = []
    for worker in (fact for fact in daemon.facts(what="ready") if fact["who"].startswith("worker")):
        killed = time.monotonic()
        os.kill(worker["pid"], signal.SIGKILL)
        wanted = {"t": "dead", "consumer": worker["name"], "why": "killed by SIGKILL"}
        (told,) = daemon.until_noted(who="scheduler", what="heard", message=wanted)
        waits.append(told["at"] - killed)
        assert not Path(f"/proc/{worker['pid']}").exists(), "it is no zombie any more"

    assert len(waits) == 20
    assert statistics.median(waits) <= 0.05
    assert max(waits) <= 0.25


def test_every_kind_of_child_is_replaced(daemon):
    daemon.start().until_ready()
    for who in ("server", "scheduler", "worker-2"):
        (first,) = daemon.until_noted(who=who, what="ready")
        os.kill(first["pid"], signal.SIGSEGV)
        daemon.until_noted(who=who, what="ready", count=2)

    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0


def test_a_second_daemon_on_the_same_directory_exits_75_and_names_the_first(daemon, home):
    daemon.start().until_ready()
    first = daemon.process

    daemon.log_path = home / "second"
    daemon.start()

    assert daemon.wait() == 75
    assert daemon.log().count("\n") == 1
    assert f"pid {first.pid}" in daemon.log()
    daemon.process = first
    assert daemon.status()["pid"] == first.pid
    assert len(daemon.status()["slots"]) == 5


@pytest.mark.parametrize("code", [66, 78])
def test_what_the_check_refuses_is_not_started_and_its_exit_code_passed_on(daemon, code):
    daemon.tell("check", str(code))

    daemon.start()

    assert daemon.wait() == code
    assert daemon.log() == "fake check: refused\n"
    assert daemon.facts() == [{"who": "check", "flags": ["--app"], "config": str(daemon.config)}]
    assert not daemon.state_dir.exists()


def test_a_required_broker_is_asked_for_before_anything_starts(daemon):
    daemon.config.write_text('[supervisor]\nworkers = 1\n[broker]\ntype = "redis"\n[worker]\nrequire_broker = true\n')

    daemon.start().until_ready(children=3)

    assert [fact["flags"] for fact in daemon.facts(who="check")] == [["--app"], ["--broker"]]


def test_when_no_worker_boots_at_first_start_it_exits_70(daemon):
    daemon.tell("worker", "fails")

    daemon.start()

    assert daemon.wait() == 70
    assert "no worker came up in 3 tries" in daemon.log()
    assert "fake worker-1: cannot boot" in daemon.log()
    assert len(daemon.facts(who="worker-1", what="start")) >= 3
    assert daemon.left() == []


def test_a_child_gets_clean_signals_descriptors_and_environment(daemon, notify):
    daemon.environ["LISTEN_FDS"] = "1"
    leak = os.open("/dev/null", os.O_RDONLY)
    daemon.start(inherited=[leak]).until_ready()
    os.close(leak)

    for fact in daemon.facts(what="start"):
        assert fact["sid"] == fact["pid"]
        assert fact["sigint_ignored"]
        assert fact["private"] == []
        # The fourth is the lifeline, the fifth the file in which facts are noted.
        assert fact["descriptors"] == [0, 1, 2, 3, 4]


def test_a_child_that_will_not_leave_is_killed_with_all_it_started(daemon):
    daemon.config.write_text("[supervisor]\nworkers = 1\nshutdown_timeout = 0.2\n")
    daemon.tell("worker-1", "stubborn grandchild")
    daemon.start().until_ready(children=4)
    (fact,) = daemon.facts(what="grandchild")

    daemon.signal(signal.SIGTERM)

    assert daemon.wait() == 70
    assert "worker-1" in daemon.log()
    assert "has not left: killing it" in daemon.log()
    daemon.until(lambda: not daemon.alive(fact["child"]))
    assert daemon.left() == []


def test_what_a_dead_worker_left_behind_does_not_outlive_it(daemon):
    daemon.tell("worker-1", "grandchild")
    daemon.start().until_ready()
    (fact,) = daemon.until_noted(what="grandchild")

    os.kill(fact["pid"], signal.SIGKILL)

    daemon.until(lambda: not daemon.alive(fact["child"]))


@pytest.mark.parametrize("before", ["it stops", "its worker dies"])
def test_what_has_left_its_session_does_not_outlive_the_daemon(daemon, before):
    daemon.tell("worker", "runaway")
    daemon.start().until_ready()
    facts = daemon.until_noted(what="runaway", count=2)
    runaways = [pid for fact in facts for pid in fact["children"]]
    if before == "its worker dies":
        os.kill(facts[0]["pid"], signal.SIGKILL)
        runaways += daemon.until_noted(what="runaway", count=3)[2]["children"]

    daemon.signal(signal.SIGTERM)

    assert daemon.wait() == 0
    assert not any(daemon.alive(pid) for pid in runaways)
    assert f"killed {len(runaways)} processes that tasks had left behind" in daemon.log()
    assert daemon.log().rstrip().endswith("stopped, exit 0")


def test_what_a_start_script_began_beside_the_daemon_is_none_of_its_business(daemon):
    noted = daemon.home / "sidecar"
    daemon.start(wrapper=("sh", "-c", f'sleep 600 & echo $! > {noted}; exec "$@"', "sh")).until_ready()
    sidecar = int(noted.read_text())

    daemon.signal(signal.SIGTERM)

    assert daemon.wait() == 0
    assert daemon.alive(sidecar)
    os.kill(sidecar, signal.SIGKILL)


def test_orphans_of_tasks_are_reaped(daemon):
    daemon.tell("worker", "orphan")
    daemon.start().until_ready()
    orphans = [fact["child"] for fact in daemon.until_noted(what="orphan", count=2)]

    daemon.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans))

    assert {slot["restarts"] for slot in daemon.status()["slots"]} == {0}


def test_when_the_supervisor_is_killed_its_children_leave_and_a_new_one_needs_no_cleaning(daemon):
    daemon.start().until_ready()

    daemon.process.kill()
    daemon.process.wait()
    daemon.until(lambda: not daemon.left())
    assert len(daemon.facts(what="orphaned")) == 4
    assert daemon.command("stop").returncode == 3

    daemon.log_path.unlink()
    daemon.start().until_ready()
    assert daemon.command("stop").returncode == 0


def test_beats_are_shown_and_do_not_keep_the_supervisor_awake(daemon):
    daemon.tell("worker", "beats")
    daemon.start().until_ready()
    daemon.until(lambda: daemon.status()["summary"] == "generation 1, 2/2 workers ready, 6 tasks running")
    (shown,) = [line for line in daemon.command("status").stdout.splitlines() if line.startswith("worker-1")]
    assert "1 ms" in shown
    assert "20 MB" in shown

    def wakeups():
        lines = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("voluntary")).split()[1])

    count = daemon.until_noted(who="worker-1", what="beats")[-1]["count"]
    before, since = wakeups(), time.monotonic()
    daemon.until(lambda: daemon.facts(who="worker-1", what="beats")[-1]["count"] >= count + 150)
    spent = time.monotonic() - since

    # Some 300 beats came in; they are looked at every other second.
    assert wakeups() - before <= 1.5 * spent + 3


def test_a_log_reader_that_is_stuck_holds_nothing_up(daemon):
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 20)  # no larger than that is it made by the log
    flags = fcntl.fcntl(writer, fcntl.F_GETFL)
    fcntl.fcntl(writer, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    while True:
        try:
            os.write(writer, b"x" * 65536)
        except BlockingIOError:
            break
    fcntl.fcntl(writer, fcntl.F_SETFL, flags)

    daemon.start(stderr=writer)
    daemon.until(lambda: (daemon.state_dir / "chicoryd.sock").exists())
    daemon.until(lambda: daemon.status()["state"] == "running")

    assert daemon.command("stop").returncode == 0
    os.close(reader)
    os.close(writer)


def converse(daemon, text):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(daemon.state_dir / "chicoryd.sock"))
        sock.sendall(text)
        return json.loads(sock.makefile().readline())


def test_the_control_socket_answers_nonsense_politely_and_goes_on(daemon):
    daemon.start().until_ready()

    assert "unknown command 'dance'" in converse(daemon, b'{"command": "dance"}\n')["error"]
    for nonsense in (b"hello\n", b"[]\n", b"[" * 4000 + b"\n", b"x" * 10_000, b"\xff\n"):
        assert "error" in converse(daemon, nonsense)
    assert converse(daemon, b'{"command": "ping"}\n') == {"pid": daemon.process.pid}


def test_it_answers_while_every_worker_hangs(daemon):
    daemon.start().until_ready()
    for pid in daemon.pids():
        os.kill(pid, signal.SIGSTOP)

    begun = time.monotonic()
    for command in (b"ping", b"status", b"health"):
        assert converse(daemon, b'{"command": "%s"}\n' % command)["live" if command == b"health" else "pid"]
    assert time.monotonic() - begun < 0.3, "a tenth of a second for each"

    for pid in daemon.pids():
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("name", ["stop", "status"])
def test_without_a_daemon_stop_and_status_say_so_and_exit_3(daemon, name):
    answer = daemon.command(name)

    assert answer.returncode == 3
    assert (
        answer.stderr == f"chicoryd: no chicoryd runs on {daemon.state_dir}; start one with: chicoryd start -c FILE\n"
    )


@pytest.mark.parametrize(
    ("app", "table", "code", "said"),
    [
        ("from chicory import Chicory\napp = Chicory()\n", "", 0, ""),
        ("from chicory import Chicory\napp = Chicory()\n", "[supervisor]\nworkrs = 2\n", 78, "workers"),
        ("1 / 0\n", "", 66, "ZeroDivisionError"),
        ("app = 3\n", "", 66, "errands:app"),
    ],
)
def test_check_finds_what_would_keep_the_daemon_from_starting(daemon, home, app, table, code, said):
    (home / "errands.py").write_text(app)
    daemon.config.write_text(f'app = "errands:app"\n{table}')
    daemon.environ["PYTHONPATH"] += f"{os.pathsep}{home}"

    answer = daemon.command("check")

    assert answer.returncode == code, answer.stderr
    assert said in answer.stderr
    assert not daemon.state_dir.exists()


def test_a_wrong_command_line_exits_64(daemon):
    assert daemon.run("dance").returncode == 64
    assert daemon.run("start").returncode == 64
    assert daemon.run().returncode == 64
    assert daemon.run("--help").returncode == 0


def test_a_file_that_is_no_toml_exits_78_with_one_line(daemon):
    daemon.config.write_text("[supervisor\n")

    answer = daemon.command("status")

    assert answer.returncode == 78
    assert answer.stderr.count("\n") == 1
    assert str(daemon.config) in answer.stderr


@pytest.mark.parametrize("broken", ["[supervisor\n", "[supervisor]\nworkers = \n", "\xff [[\n", None])
def test_a_daemon_whose_file_was_broken_or_deleted_can_be_asked_and_stopped_all_the_same(daemon, broken):
    daemon.start().until_ready()
    if broken is None:
        daemon.config.unlink()
    else:
        daemon.config.write_text(daemon.config.read_text() + broken)

    reload, status = daemon.command("reload"), daemon.command("status")

    assert reload.returncode == 1
    assert str(daemon.config) in reload.stderr
    assert status.returncode == 0
    assert "2/2 workers ready" in status.stdout
    assert "the daemon goes by what it read before" in status.stderr
    assert daemon.command("stop").returncode == 0
    assert daemon.wait() == 0


def test_a_state_directory_that_cannot_be_used_exits_78(daemon, home):
    (home / "file").write_text("")
    daemon.config.write_text('[supervisor]\nstate_dir = "file/below"\n')

    daemon.start()

    assert daemon.wait() == 78
    assert "set supervisor.state_dir to another" in daemon.log()
