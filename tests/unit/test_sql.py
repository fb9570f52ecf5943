"""Results in a database, as far as no database is needed: what is stored, said, refused, and when it is looked for."""

import re
import sqlite3
import sys

import psycopg
import pymysql
import pytest
import sqlalchemy.exc
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import mysql, postgresql, sqlite

from chicory import Chicory
from chicory.backends.base import StoredRecord
from chicory.backends.sql.address import address_of
from chicory.backends.sql.complaints import complaint, passing
from chicory.backends.sql.notices import payloads
from chicory.backends.sql.rows import furthest, known
from chicory.backends.sql.sqlite import journal_mode
from chicory.backends.sql.tables import results
from chicory.backends.sql.watch import LONGEST, SHARE, SHORTEST, next_look
from chicory.config import BackendConfig, ChicoryConfig, SqlBackendConfig
from chicory.errors import BrokerFull, BrokerRefused, BrokerUnavailable, ConfigError
from chicory.ids import new_id
from chicory.secret import SecretStr
from chicory.types import LAST_STEP, BackendType, BrokerType, ResultRecord, TaskState
from chicory.wire import pack_record

STATES = [TaskState.PENDING, TaskState.STARTED, TaskState.RETRY, TaskState.SUCCESS, TaskState.FAILURE]
CANARY = "canary"
URLS = [
    f"{kind}://user:{CANARY}@host:1/results?application_name={CANARY}" for kind in ("postgresql", "mysql", "mariadb")
]


def stored(task_id, state, value=None):
    return StoredRecord(task_id, pack_record(ResultRecord(state, value)))


def replaying(records):
    """What would be left, were the records stored one by one."""
    left = {}
    for kept in records:
        row = furthest([kept])[0]
        there = left.get(row.task_id)
        if there is None or (there.step < LAST_STEP and there.step <= row.step):
            left[row.task_id] = row
    return left


@given(st.lists(st.builds(stored, st.sampled_from("abc"), st.sampled_from(STATES), st.integers(0, 9))))
def test_a_batch_leaves_what_its_records_one_by_one_would_leave(records):
    rows = furthest(records)

    assert {row.task_id: row for row in rows} == replaying(records)
    assert [row.task_id for row in rows] == sorted({kept.task_id for kept in records})


def test_each_state_is_a_step():
    steps = [furthest([stored("a", state)])[0].step for state in STATES]

    assert steps == [0, 1, 0, LAST_STEP, LAST_STEP]


def test_what_is_not_there_is_unknown_or_expired_by_its_id():
    young, old, over, there = new_id(), f"{0:012x}" + new_id()[12:], new_id(), new_id()
    record = pack_record(ResultRecord(TaskState.SUCCESS, 1))

    said = known([young, old, over, there], [(over, record, True), (there, record, False)], ttl=60, now=1e9)

    states = [said[task_id].state for task_id in (young, old, over, there)]
    assert states == [TaskState.UNKNOWN, TaskState.EXPIRED, TaskState.EXPIRED, TaskState.SUCCESS]


@given(st.lists(st.text("abcdef0123456789", min_size=1, max_size=200), max_size=200))
def test_notices_carry_every_id_and_are_short_enough(task_ids):
    said = payloads(task_ids)

    assert " ".join(said).split() == task_ids
    assert all(len(one) < 8000 for one in said)


@given(st.floats(SHORTEST, 100), st.booleans(), st.floats(0, 100))
def test_looks_grow_apart_within_bounds_and_leave_the_database_most_of_the_time(last, found, took):
    rest = next_look(last, found=found, took=took)

    assert SHORTEST <= rest <= max(LONGEST, took * SHARE)
    assert rest >= took * SHARE


def test_looks_are_close_after_something_was_found():
    assert next_look(LONGEST, found=True, took=0) == SHORTEST
    assert next_look(LONGEST, found=False, took=0) == LONGEST


@pytest.mark.parametrize(
    ("version", "mode"),
    [
        ((3, 40, 1), "DELETE"),
        ((3, 44, 5), "DELETE"),
        ((3, 44, 6), "WAL"),
        ((3, 45, 9), "DELETE"),
        ((3, 50, 7), "WAL"),
        ((3, 51, 2), "DELETE"),
        ((3, 51, 3), "WAL"),
        ((4, 0, 0), "WAL"),
    ],
)
def test_only_builds_without_the_reset_bug_write_ahead(version, mode):
    assert journal_mode(version) == mode


@pytest.mark.parametrize(
    ("kind", "dialect"),
    [
        ("postgresql", postgresql.dialect()),
        ("mysql", mysql.dialect()),
        ("sqlite", sqlite.dialect()),
    ],
)
def test_the_check_and_the_write_are_one_statement(kind, dialect):
    statement = str(results(kind, "app").upsert.compile(dialect=dialect))

    assert statement.startswith("INSERT INTO app_results_v1 (task_id, step, record, expires_at) ")
    assert ("ON DUPLICATE KEY UPDATE" if kind == "mysql" else "ON CONFLICT (task_id) DO UPDATE") in statement
    # Nothing but the four values is a parameter: drivers repeat only those.
    assert len(re.findall(r"%\(\w+\)s|%s|\?", statement)) == 4


class Complaint(Exception):
    def __init__(self, *args, sqlstate=None):
        super().__init__(*args)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Complaint("connection refused"), BrokerUnavailable),
        (Complaint("the database system is starting up", sqlstate="57P03"), BrokerUnavailable),
        (Complaint("deadlock detected", sqlstate="40P01"), BrokerUnavailable),
        (Complaint("database is locked"), BrokerUnavailable),
        (Complaint(2003, "Can't connect to MySQL server"), BrokerUnavailable),
        (Complaint('FATAL:  password authentication failed for user "u"'), BrokerRefused),
        (Complaint("permission denied for table", sqlstate="42501"), BrokerRefused),
        (Complaint(1045, "Access denied for user"), BrokerRefused),
        (Complaint("unable to open database file"), BrokerRefused),
        (Complaint("could not extend file", sqlstate="53100"), BrokerFull),
        (Complaint("database or disk is full"), BrokerFull),
        (Complaint(1114, "The table is full"), BrokerFull),
    ],
)
def test_an_error_says_whether_trying_again_may_help(error, kind):
    wrapped = sqlalchemy.exc.OperationalError(f"INSERT {CANARY}", {"record": CANARY}, error)

    made = complaint(wrapped, "postgresql://host/results")

    assert type(made) is kind
    assert str(made).startswith("postgresql://host/results: ")
    assert "\n" not in str(made)
    assert CANARY not in str(made)


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (Complaint("deadlock detected", sqlstate="40P01"), True),
        (Complaint("could not serialize", sqlstate="40001"), True),
        (Complaint(1213, "Deadlock found"), True),
        (Complaint("database is locked"), False),
        (Complaint(2003, "Can't connect to MySQL server"), False),
    ],
)
def test_what_another_transaction_caused_may_be_tried_at_once(error, passes):
    assert passing(sqlalchemy.exc.OperationalError("INSERT", {}, error)) is passes
    assert passing(sqlalchemy.exc.OperationalError("INSERT", {}, error, connection_invalidated=True))
    assert not passing(error)


@pytest.mark.parametrize("kind", [psycopg.errors.UndefinedTable, psycopg.errors.NotNullViolation])
def test_what_a_database_will_never_do_is_a_refusal(kind):
    wrapped = sqlalchemy.exc.DBAPIError.instance("INSERT", {}, kind("no\nDETAIL: canary"), psycopg.Error)

    assert type(complaint(wrapped, "here")) is BrokerRefused
    assert str(complaint(wrapped, "here")) == "here: no"


def test_a_driver_s_own_error_is_translated_too():
    assert str(complaint(sqlite3.OperationalError("database is locked"), "here")) == "here: database is locked"
    assert str(complaint(pymysql.OperationalError(2013, "Lost connection"), "here")) == "here: Lost connection"
    assert str(complaint(sqlalchemy.exc.TimeoutError(), "here")) == "here: TimeoutError"


@pytest.mark.parametrize("url", URLS)
def test_a_password_is_never_shown(url):
    app = Chicory(BrokerType.MEMORY, url)

    shown = f"{app.backend!r} {app.backend.address!r} {app.backend.address} {app.config!r} {vars(app.backend)}"

    assert CANARY not in shown
    assert "//host:1/results" in repr(app.backend)


def test_a_backend_may_be_named_by_its_url(tmp_path):
    app = Chicory(BrokerType.MEMORY, f"sqlite:///{tmp_path}/results.db")

    assert app.config.chosen_backend.type is BackendType.SQL
    assert repr(app.backend) == f"<SqlBackend sqlite:///{tmp_path}/results.db>"
    assert not app.joined


def test_a_url_that_no_backend_speaks_names_those_that_one_does():
    with pytest.raises(ConfigError, match=r"no backend speaks the URL scheme 'postgres'; did you mean 'postgresql'\?"):
        Chicory(BrokerType.MEMORY, "postgres://user:canary@host/results")


def test_a_database_without_a_url_is_an_error_that_says_what_to_write():
    app = Chicory(BrokerType.MEMORY, BackendType.SQL)

    with pytest.raises(ConfigError, match=r"backend\.sql\.url is missing: say where results are kept"):
        _ = app.backend


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        (
            URLS[0],
            "psycopg",
            "PostgreSQL needs another package (.*); install it with: pip install 'chicoryd.postgresql.'",
        ),
        (URLS[1], "pymysql", "MySQL needs another package (.*); install it with: pip install 'chicoryd.mysql.'"),
        (URLS[2], "pymysql", "MariaDB needs another package (.*); install it with: pip install 'chicoryd.mysql.'"),
        (URLS[0], "sqlalchemy", "SQL needs another package (.*); install it with: pip install 'chicoryd.sql.'"),
    ],
)
def test_a_missing_driver_is_an_error_that_says_what_to_install(url, module, extra, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("chicory.backends.sql")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    config = ChicoryConfig(backend=BackendConfig(sql=SqlBackendConfig(url=url)))

    with pytest.raises(ConfigError, match=extra) as missing:
        _ = Chicory(BrokerType.MEMORY, config=config).backend

    assert "\n" not in str(missing.value)
    assert CANARY not in str(missing.value)


def test_what_the_url_says_wins_over_what_is_usual():
    address = address_of(SecretStr("postgresql://h/results?connect_timeout=60"))

    assert "connect_timeout" not in address.arguments()
    assert address.arguments()["application_name"] == "chicory"
