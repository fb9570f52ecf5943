"""Private databases for tests: each in a directory of its own, on a unix socket and a free port, ended by its own pid.

No test ever talks to a database that was running before.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg
import pymysql
import pytest

from tests.servers import free_port, missing

# So that a password that is shown somewhere can be found.
PASSWORD = "canary-3f9d"
USER = "chicory"
# Databases refuse to run as root.
NOBODY = "nobody"


class Database:
    """A server that keeps its address and its data over `kill` and `start`."""

    def __init__(self) -> None:
        # Short, because the path of a unix socket may have 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="chicory-test-"))
        self.data = self.directory / "data"
        self.log = self.directory / "log"
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        if os.getuid() == 0:
            owner = pwd.getpwnam(NOBODY)
            os.chown(self.directory, owner.pw_uid, owner.pw_gid)
            self._popen = partial(subprocess.Popen, user=owner.pw_uid, group=owner.pw_gid, extra_groups=[])
        else:
            self._popen = subprocess.Popen

    @property
    def pid(self) -> int:
        assert self._process is not None, "the database does not run"
        return self._process.pid

    def start(self) -> None:
        """Return when it answers."""
        assert self._process is None, "the database runs already"
        deadline = time.monotonic() + 60
        self._process = self._run(*self.command)
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"{self.command[0]} does not start:\n{self.log.read_text()[-2000:]}")
            # A poll, because a server cannot tell when it is ready.
            time.sleep(0.01)

    def kill(self) -> None:
        """End it as a crash would: nothing is finished first, and the next start recovers."""
        self._end(self.crash)

    def restart(self) -> None:
        self.kill()
        self.start()

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self, by: signal.Signals) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(by)
            self._process.wait(30)
            self._process = None

    def _run(self, *command: str, stdin: int = subprocess.DEVNULL) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            return self._popen(command, cwd=self.directory, stdin=stdin, stdout=log, stderr=log)

    def _do(self, *command: str) -> None:
        if self._run(*command).wait(120):
            raise RuntimeError(f"{command[0]} failed:\n{self.log.read_text()[-2000:]}")


class Postgres(Database):
    # To the postmaster: end all children, write nothing more.  SIGKILL would leave them behind.
    crash = signal.SIGQUIT

    def __init__(self, binaries: Path) -> None:
        super().__init__()
        secret = self.directory / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._do(
            *(str(binaries / "initdb"), "-D", str(self.data), "-U", USER, "-A", "scram-sha-256"),
            *("--pwfile", str(secret), "-N", "-E", "UTF8", "--locale", "C"),
        )
        self.command = [
            *(str(binaries / "postgres"), "-D", str(self.data), "-k", str(self.directory), "-p", str(self.port)),
            *("-h", "127.0.0.1", "-F", "-c", "shared_buffers=16MB", "-c", "max_connections=40"),
        ]

    @property
    def url(self) -> str:
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def client(self) -> "psycopg.Connection[tuple[object, ...]]":
        """A plain connection, to look behind Chicory's back."""
        return psycopg.connect(self.url, autocommit=True)

    def answers(self) -> bool:
        try:
            self.client().close()
        except psycopg.OperationalError:
            return False
        return True


class MariaDB(Database):
    crash = signal.SIGKILL

    def __init__(self, server: str, install: str) -> None:
        super().__init__()
        # The tables of users are made by a start script; afterwards the password is set as any administrator would.
        self._do(
            *(install, "--no-defaults", f"--datadir={self.data}", "--auth-root-authentication-method=normal"),
            *("--skip-test-db", "--skip-name-resolve"),
        )
        setup = self.directory / "setup.sql"
        setup.write_text(
            "CREATE DATABASE IF NOT EXISTS results;\n"
            f"CREATE USER IF NOT EXISTS {USER} IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON results.* TO {USER};\n"
        )
        setup.chmod(0o644)
        self.command = [
            *(server, "--no-defaults", f"--datadir={self.data}", f"--socket={self.directory / 's'}"),
            *(f"--port={self.port}", "--bind-address=127.0.0.1", f"--pid-file={self.directory / 'pid'}"),
            *("--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0"),
            *("--skip-log-bin", f"--init-file={setup}", "--skip-name-resolve"),
        ]

    @property
    def url(self) -> str:
        return f"mariadb://{USER}:{PASSWORD}@127.0.0.1:{self.port}/results"

    def client(self) -> "pymysql.Connection[pymysql.cursors.Cursor]":
        """A plain connection, to look behind Chicory's back."""
        return pymysql.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, database="results", autocommit=True
        )

    def answers(self) -> bool:
        try:
            self.client().close()
        except pymysql.Error:
            return False
        return True


def postgres() -> Postgres:
    """A PostgreSQL that does not run yet; the test is skipped where there is none."""
    # Debian keeps these off PATH, because several versions may be there.
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    found = shutil.which("initdb", path=os.pathsep.join([os.environ.get("PATH", ""), *map(str, homes)]))
    if found is None:
        missing("there is no PostgreSQL; apt-get install postgresql")
    return Postgres(Path(found).resolve().parent)


def mariadb() -> MariaDB:
    """A MariaDB that does not run yet; the test is skipped where there is none."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    server, install, asked = (
        shutil.which(name, path=path) for name in ("mariadbd", "mariadb-install-db", "my_print_defaults")
    )
    if server is None or install is None or asked is None:
        missing("there is no MariaDB; apt-get install mariadb-server-core mariadb-client-core")
    return MariaDB(server, install)


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A PostgreSQL that lives as long as the block."""
    database = postgres()
    try:
        database.start()
        yield database
    finally:
        database.remove()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Postgres]:
    """One PostgreSQL for the whole session; every test takes a table of its own."""
    with running_postgres() as database:
        yield database


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDB]:
    """One MariaDB for the whole session; every test takes a table of its own."""
    database = mariadb()
    try:
        database.start()
        yield database
    finally:
        database.remove()
