"""What `make` does on a machine where something is missing, and nothing may be installed."""

import shutil
import subprocess

import pytest

from tests.pages import ROOT


@pytest.fixture
def bare(tmp_path):
    """A PATH with a shell and little else: no package manager, no sudo, no servers."""
    for name in ("sh", "env", "id", "dirname", "sed"):
        (tmp_path / name).symlink_to(shutil.which(name))
    return tmp_path


@pytest.fixture
def furnished(bare):
    """The same with every server on it."""
    for name in ("rabbitmq-server", "initdb", "mariadbd", "my_print_defaults"):
        add(bare, name, "")
    add(bare, "redis-server", "echo Redis server v=7.0.15 sha=0")
    return bare


def add(directory, name, script):
    (directory / name).unlink(missing_ok=True)
    (directory / name).write_text(f"#!{directory}/sh\n{script}\n")
    (directory / name).chmod(0o755)


def tool(path, *words, **environ):
    done = subprocess.run(
        [path / "sh", ROOT / ".ci" / words[0], *words[1:]],
        # Where Debian keeps what it keeps off PATH, there is nothing either.
        env={"PATH": str(path), "POSTGRESQL_HOME": str(path), "MARIADB_HOME": str(path / "sbin"), **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stderr


def test_a_python_that_makes_no_environments_is_told_what_to_install(bare):
    add(bare, "python3", 'case "$2" in *ensurepip*) exit 1;; *version_info[*) echo python3.11-venv;; esac')

    code, said = tool(bare, "make-venv", bare / "venv")

    assert code == 1
    assert said.splitlines()[-1].endswith("run: apt-get install python3.11-venv")


def test_an_old_python_is_refused(bare):
    add(bare, "python3", "exit 1")

    code, said = tool(bare, "make-venv", bare / "venv")

    assert code == 1
    assert "Python 3.11" in said
    assert said.count("\n") == 1


def test_the_first_python_that_is_new_enough_makes_the_environment(bare):
    add(bare, "python3", "exit 1")
    add(bare, "python3.12", f'case "$1" in -m) echo "$@" > {bare}/made;; esac')

    assert tool(bare, "make-venv", "somewhere")[0] == 0
    assert (bare / "made").read_text() == "-m venv --clear somewhere\n"


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("redis-server", "no redis-server of 7.0 or newer (found: none)"),
        ("rabbitmq-server", "no rabbitmq-server"),
        ("initdb", "no PostgreSQL"),
        ("mariadbd", "no MariaDB"),
        ("my_print_defaults", "no MariaDB"),
    ],
)
def test_a_missing_server_is_a_note_and_under_ci_a_failure(furnished, name, note, ci, code):
    (furnished / name).unlink()

    ended, said = tool(furnished, "need-server", CI=ci)

    assert ended == code
    assert said.splitlines()[-1] == f"{note}; install one to run every test"


@pytest.mark.parametrize(("version", "code"), [("6.0.16", 1), ("7.0.15", 0), ("8.2.1", 0)])
def test_a_server_must_be_new_enough(furnished, version, code):
    add(furnished, "redis-server", f"echo Redis server v={version} sha=0")

    assert tool(furnished, "need-server", CI="true")[0] == code


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("redis-server", "redis-server"),
        ("rabbitmq-server", "rabbitmq-server"),
        ("initdb", "postgresql"),
        ("mariadbd", "mariadb-server-core"),
    ],
)
def test_a_missing_server_is_installed_where_that_is_allowed(furnished, name, package):
    (furnished / name).unlink()
    add(furnished, "id", "echo 0")
    add(furnished, "apt-get", f'echo "$@" >> {furnished}/asked')

    tool(furnished, "need-server")

    asked = (furnished / "asked").read_text().splitlines()
    assert asked[:2] == ["update -qq", f"install -qq -y --no-install-recommends {package}"]


def test_a_server_that_the_installation_started_is_stopped(bare):
    add(bare, "id", "echo 0")
    add(bare, "apt-get", f'case "$*" in *rabbitmq-server) echo >> {bare}/rabbitmq-server;; esac')
    add(bare, "systemctl", f'echo "$@" >> {bare}/told')

    tool(bare, "need-server")

    assert (bare / "told").read_text().splitlines()[-1] == "disable --now rabbitmq-server"


def test_a_database_that_the_installation_started_is_stopped(furnished):
    (furnished / "initdb").unlink()
    add(furnished, "id", "echo 0")
    add(furnished, "apt-get", f'echo "$@" >> {furnished}/asked')
    another = f"[ -e {furnished}/asked ] && echo 15 main 5432 online postgres /d /l"
    add(furnished, "pg_lsclusters", f"echo 14 mine 5433 online postgres /d /l; {another}")
    add(furnished, "pg_ctlcluster", f'echo "$@" >> {furnished}/stopped')

    tool(furnished, "need-server")

    assert (furnished / "stopped").read_text() == "15 main stop\n"
