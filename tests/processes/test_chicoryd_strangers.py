"""Users to whom the daemon does not belong."""

import os
import subprocess
import sys

import pytest

NOBODY = 65534
# They may not be able to read the interpreter's own files: a first call, where no daemon is, imports all there is.
AS_NOBODY = f"""
import contextlib, io, os, sys
from chicoryd.__main__ import main
told, sys.argv = sys.argv, [*sys.argv[:2], "-c", os.devnull]
with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(SystemExit):
    main()
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
sys.argv = told
main()
"""


@pytest.fixture(autouse=True)
def possible():
    if os.geteuid():
        pytest.skip("only root can be somebody else")


def as_nobody(daemon, command):
    return subprocess.run(
        [sys.executable, "-c", AS_NOBODY, command, "-c", str(daemon.config)],
        env=daemon.environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("command", ["status", "reload", "stop"])
def test_another_user_cannot_reach_the_control_socket(daemon, home, command):
    home.chmod(0o755)
    daemon.start().until_ready()

    refused = as_nobody(daemon, command)

    assert (refused.returncode, refused.stdout) == (3, ""), refused.stderr
    assert refused.stderr == f"chicoryd: the daemon on {daemon.state_dir} belongs to another user\n"
    assert daemon.status()["summary"] == "generation 1, 2/2 workers ready"


@pytest.mark.parametrize("command", ["status", "reload", "stop"])
def test_another_user_who_reaches_it_after_all_is_refused_by_the_daemon_itself(daemon, home, command):
    home.chmod(0o755)
    daemon.start().until_ready()
    daemon.state_dir.chmod(0o755)
    (daemon.state_dir / "chicoryd.sock").chmod(0o666)

    refused = as_nobody(daemon, command)

    assert (refused.returncode, refused.stdout) == (os.EX_NOPERM, ""), refused.stderr
    assert refused.stderr == f"chicoryd: user {NOBODY} may not control this daemon\n"
    assert daemon.status()["generation"] == 1
    assert daemon.status()["summary"] == "generation 1, 2/2 workers ready"
    assert daemon.command("stop").returncode == 0
