"""chicoryd under a service manager: what it says, to whatever socket, and the unit that it is started by."""

import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.processes.conftest import PATIENCE

UNIT = Path(__file__).parents[2] / "conf" / "chicoryd.service"


def heard(notify):
    """All datagrams that are waiting."""
    found = []
    notify.setblocking(False)
    try:
        while True:
            found.append(notify.recv(4096).decode())
    except BlockingIOError:
        return found
    finally:
        notify.settimeout(PATIENCE)


def until_heard(notify, *wanted):
    """All datagrams until the *wanted* ones have come, in this order."""
    found = []
    for end in wanted:
        found.append(notify.recv(4096).decode())
        while not found[-1].endswith(end):
            found.append(notify.recv(4096).decode())
    return found


def spoken(datagrams):
    """Those that are more than news for people."""
    return [text for text in datagrams if not text.startswith("STATUS=")]


def check_reloading(datagrams):
    """Request and answer of one reload; the first says in the same datagram when it began."""
    reloading, ready = spoken(datagrams)
    assert ready == "READY=1"
    text, instant = reloading.split("\nMONOTONIC_USEC=")
    assert text == "RELOADING=1"
    assert time.monotonic() - PATIENCE < int(instant) / 1e6 <= time.monotonic()


def test_the_service_manager_hears_of_the_start_of_reloads_good_and_bad_and_of_the_stop(daemon, notify):
    daemon.start()
    start = until_heard(notify, "READY=1")
    assert start[0] == "STATUS=starting, generation 1, 0/2 workers ready"
    assert spoken(start) == ["READY=1"]
    daemon.until_ready()

    assert daemon.command("reload").returncode == 0
    check_reloading(until_heard(notify, "READY=1"))

    daemon.tell("check", "78")
    assert daemon.command("reload").returncode == 1
    # News comes once a second.
    check_reloading(until_heard(notify, "READY=1", "; reload failed: fake check: refused"))

    daemon.tell("linger", "")
    daemon.signal(signal.SIGTERM)
    extended = "EXTEND_TIMEOUT_USEC=10000000"
    stop = until_heard(notify, "STOPPING=1", extended, "STATUS=stopping, 2 workers left", extended)
    (daemon.fakes / "linger").unlink()
    assert daemon.wait() == 0
    assert spoken(stop + heard(notify)) == ["STOPPING=1", extended, extended]


def gone(path):
    """A manager that has left its socket behind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(path))


def bound(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(path))
    return sock


def full(path):
    """A manager that does not listen any more."""
    sock = bound(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filling:
        filling.setblocking(False)
        try:
            while True:
                filling.sendto(b"x", str(path))
        except BlockingIOError:
            return sock


@pytest.mark.parametrize("make", [lambda path: None, gone, bound, full], ids=["absent", "gone", "bound", "full"])
def test_whatever_becomes_of_the_service_manager_nothing_waits_for_it(daemon, home, make):
    manager = make(home / "notify")
    daemon.environ["NOTIFY_SOCKET"] = str(home / "notify")

    daemon.start().until_ready()
    # Far less than what a sender that blocks, or tries again, would take.
    begun = time.monotonic()
    assert daemon.command("reload").returncode == 0
    assert daemon.command("stop").returncode == 0
    assert time.monotonic() - begun < 10

    assert daemon.wait() == 0
    if manager is not None:
        said = set(heard(manager))
        manager.close()
        assert ("READY=1" in said) == (make is bound)


def test_the_watchdog_is_fed_at_half_its_time_and_starves_when_the_daemon_stands_still(daemon, notify):
    daemon.environ["WATCHDOG_USEC"] = "400000"
    daemon.start()

    def wait():
        while notify.recv(4096) != b"WATCHDOG=1":
            pass
        return time.monotonic()

    first = wait()
    times = [wait() for _ in range(5)]
    assert 0.8 <= times[-1] - first < 5
    daemon.signal(signal.SIGSTOP)
    time.sleep(0.3)
    notify.setblocking(False)
    while True:
        try:
            notify.recv(4096)
        except BlockingIOError:
            break
    time.sleep(0.5)
    with pytest.raises(BlockingIOError):
        notify.recv(4096)
    daemon.signal(signal.SIGCONT)


def test_the_unit_is_one_that_systemd_understands(tmp_path):
    text = UNIT.read_text()
    for line in ("Type=notify", "WatchdogSec=30", "KillMode=mixed", "OOMPolicy=continue"):
        assert f"\n{line}\n" in text
    assert "ExecReload=/usr/local/bin/chicoryd reload -c %E/chicory/chicory.toml" in text
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "chicoryd.service"
    unit.write_text(text.replace("/usr/local/bin/chicoryd", "/bin/true"))

    checked = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)

    # An older systemd passes over the settings of a newer one.
    complaints = [line for line in checked.stderr.splitlines() if "chicoryd.service" in line]
    assert [line for line in complaints if "Unknown key 'Restart" not in line] == []
    assert checked.returncode == 0


def test_the_unit_exposes_little(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    review = ["systemd-analyze", "security", "--offline=true", "--no-pager"]
    unit = shutil.copy(UNIT, tmp_path)

    found = subprocess.run([*review, "--threshold=25", unit], capture_output=True, text=True, check=False)

    if "unrecognized option" in found.stderr:
        pytest.skip("this systemd-analyze reviews only units that are loaded")
    # Of ten points; the exit code says whether it is within the threshold, which counts tenths.
    exposure = float(re.search(r"Overall exposure level for chicoryd.service: ([\d.]+)", found.stdout)[1])
    assert exposure <= 2.5, found.stdout
    assert found.returncode == 0
