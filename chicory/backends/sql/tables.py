"""The table of results, and the statements on it: what differs from database to database stands here."""

from typing import Any

import attrs
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Delete,
    Index,
    LargeBinary,
    MetaData,
    Select,
    SmallInteger,
    String,
    Table,
    Update,
    and_,
    bindparam,
    delete,
    func,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.sql.dml import Insert

from chicory.types import LAST_STEP

# Milliseconds since the epoch by the database's clock, whatever time zone the session has.
_CLOCKS = {
    "postgresql": "(extract(epoch from clock_timestamp()) * 1000)::bigint",
    "mysql": "(timestampdiff(microsecond, '1970-01-01', utc_timestamp(3)) div 1000)",
    "sqlite": "cast((julianday('now') - 2440587.5) * 86400000 as integer)",
}
_MYSQL = ("mysql", "mariadb")


@attrs.frozen
class Results:
    """The table `{prefix}_results_v1`; another layout of it will have another number.

    upsert: takes task_id, step, record and expires_at: many times over, or with *arrays* a list of each.
    note: takes id, new_step and new_record, many times over; a row that is not there, or further on, stays so.
    reopen: takes id, seen, new_record and new_expiry; replaces what was seen, unless it is another by now.
    fetch: takes ids; gives task_id, record, and whether its time is over.
    notify: takes channel and ids; None where the database cannot tell others.
    """

    table: Table
    metadata: MetaData
    now: Select[int]
    upsert: Insert
    note: Update
    reopen: Update
    arrays: bool
    fetch: Select[str, bytes, bool]
    notify: Select[Any] | None

    def clean(self, limit: int) -> Delete:
        """Deletes at most *limit* rows whose time is over."""
        over = self.table.c.expires_at <= _clock(self.table.metadata.info["kind"])
        # A table of its own around the limit: MySQL takes neither a limit in a subquery nor the table it deletes from.
        due = select(self.table.c.task_id).where(over).order_by(self.table.c.expires_at).limit(limit).subquery("due")
        return delete(self.table).where(self.table.c.task_id.in_(select(due.c.task_id)), over)


def results(kind: str, prefix: str) -> Results:
    """The table as a database of this *kind* has it."""
    metadata = MetaData(info={"kind": kind})
    name = f"{prefix}_results_v1"
    # Ids are ASCII and differ by case; in order of their bytes, the ids of one day are near each other.
    text = String(200, collation="C") if kind == "postgresql" else String(200)
    ascii_text = mysql.VARCHAR(200, charset="ascii", collation="ascii_bin")
    table = Table(
        name,
        metadata,
        Column[str]("task_id", text.with_variant(ascii_text, *_MYSQL), primary_key=True),
        Column[int]("step", SmallInteger, nullable=False),
        Column[bytes]("record", LargeBinary().with_variant(mysql.MEDIUMBLOB(), *_MYSQL), nullable=False),
        Column[int]("expires_at", BigInteger, nullable=False),
        Index(f"{name}_expiry", "expires_at"),
        mysql_engine="InnoDB",
        mariadb_engine="InnoDB",
    )
    clock = _clock(kind)
    return Results(
        table=table,
        metadata=metadata,
        now=select(clock),
        upsert=_upsert(kind, table, clock),
        note=update(table)
        .where(
            table.c.task_id == bindparam("id"),
            table.c.step < literal_column(str(LAST_STEP)),
            table.c.step <= bindparam("new_step"),
            table.c.expires_at > clock,
        )
        .values(step=bindparam("new_step"), record=bindparam("new_record")),
        reopen=update(table)
        .where(table.c.task_id == bindparam("id"), table.c.record == bindparam("seen"))
        .values(step=0, record=bindparam("new_record"), expires_at=bindparam("new_expiry")),
        arrays=kind == "postgresql",
        fetch=select(table.c.task_id, table.c.record, (table.c.expires_at <= clock).label("over")).where(
            table.c.task_id.in_(bindparam("ids", expanding=True))
        ),
        notify=select(func.pg_notify(bindparam("channel"), bindparam("ids"))) if kind == "postgresql" else None,
    )


def _clock(kind: str) -> ColumnElement[int]:
    return literal_column(_CLOCKS["mysql" if kind in _MYSQL else kind], BigInteger)


def _upsert(kind: str, table: Table, clock: ColumnElement[int]) -> Insert:
    """Look and write are one statement, so no two workers can both find a row that is not as far.

    A row whose time is over counts as none.  The numbers are literals, because drivers repeat only what stands in
    VALUES; PostgreSQL gets a whole batch at once, which it plans once, though it may keep no prepared statements.
    """

    unfinished, over = table.c.step < literal_column(str(LAST_STEP)), table.c.expires_at <= clock
    if kind in _MYSQL:
        statement = mysql.insert(table)
        new = statement.inserted
        further = or_(and_(unfinished, table.c.step <= new.step), over)
        # An assignment sees those before it.  So the two that decide come last, and the very last does without `step`:
        # what is finished lives no longer than what is not, so the nearer end is the right one.
        return statement.on_duplicate_key_update(
            [
                ("record", func.if_(further, new.record, table.c.record)),
                ("step", func.if_(further, new.step, table.c.step)),
                ("expires_at", func.if_(over, new.expires_at, func.least(table.c.expires_at, new.expires_at))),
            ]
        )
    if kind == "sqlite":
        statement = sqlite.insert(table)
    else:
        lists = (bindparam(column.name, type_=postgresql.ARRAY(column.type)) for column in table.c)
        rows = func.unnest(*lists).table_valued(*table.c.keys()).render_derived("given")
        statement = postgresql.insert(table).from_select(table.c.keys(), select(*rows.c))
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=[table.c.task_id],
        set_={"step": new.step, "record": new.record, "expires_at": new.expires_at},
        where=or_(and_(unfinished, table.c.step <= new.step), over),
    )
