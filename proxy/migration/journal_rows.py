"""The rows of the journal: what a mark is, and how it is written, closed and cleared. Each function is work on a
connection, to be done in a transaction with others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Final

from sqlalchemy import (
    Case,
    ColumnElement,
    Connection,
    RowMapping,
    and_,
    case,
    delete,
    exists,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.engine.interfaces import DBAPICursor

from .database import marks, natives, open_writes
from .keys import read_key, write_key
from .marks import Dirty, Mark, Native

ALL: Final = "*"  # the key of a mark that stands for every point
# Rows in one statement: at each, SQLite's driver lets go of the interpreter, and may wait long to have it again.
_ROWS: Final = 200
_INSERT_MARKS: Final = "INSERT INTO crossfade_marks (migration, key, seq, marked) VALUES "


def is_open(now: ColumnElement[Any]) -> Case[int]:
    """Whether the write of a joined row has not ended."""
    unsettled = or_(open_writes.c.settles.is_(None), open_writes.c.settles > now)
    return case((and_(open_writes.c.seq.is_not(None), unsettled), 1), else_=0)


def ready_since(now: ColumnElement[Any]) -> Case[float]:
    """Since when a joined row waits to be brought over: nothing while its write has not ended."""
    ended = case((open_writes.c.settles > marks.c.marked, open_writes.c.settles), else_=marks.c.marked)
    return case((is_open(now) == 0, ended))


def read_dirty(key: str, rows: Sequence[RowMapping]) -> Dirty:
    """A touched point, from the rows of its marks."""
    point = None if key == ALL else read_key(key)
    ended = tuple(row["seq"] for row in rows if not row["open"])
    return Dirty(point, max(row["seq"] for row in rows), ended, len(ended) == len(rows))


def insert_mark(
    migration: str, keys: Sequence[str], writer: str, given: Mapping[str, Native], now: float, connection: Connection
) -> int:
    """Announce a write; its number."""
    seq = _open_write(migration, writer, connection)
    add_keys(Mark(migration, seq), keys, now, connection)
    if given:
        sent = [
            {
                "migration": migration,
                "key": key,
                "seq": seq,
                "stored": native.stored.astype("<f4").tobytes(),
                "vector": native.vector.astype("<f4").tobytes(),
            }
            for key, native in given.items()
        ]
        connection.execute(insert(natives), sent)
    return seq


def add_keys(mark: Mark, keys: Sequence[str], now: float, connection: Connection) -> None:
    """Mark keys as touched by a write."""
    if not keys:
        return
    if _is_sqlite(connection):
        with _cursor(connection) as cursor:
            for first in range(0, len(keys), _ROWS):
                part = keys[first : first + _ROWS]
                values = [value for key in part for value in (mark.migration, key, mark.seq, now)]
                cursor.execute(_INSERT_MARKS + ", ".join(["(?, ?, ?, ?)"] * len(part)), values)
        return
    rows = [{"migration": mark.migration, "key": key, "seq": mark.seq, "marked": now} for key in keys]
    connection.execute(insert(marks), rows)


def _open_write(migration: str, writer: str, connection: Connection) -> int:
    if _is_sqlite(connection):
        with _cursor(connection) as cursor:
            cursor.execute("INSERT INTO crossfade_open_writes (migration, writer) VALUES (?, ?)", (migration, writer))
            number: int = cursor.lastrowid
        return number
    opened = connection.execute(insert(open_writes).values(migration=migration, writer=writer))
    assert opened.inserted_primary_key is not None  # as above
    seq: int = opened.inserted_primary_key[0]
    return seq


def _is_sqlite(connection: Connection) -> bool:
    return connection.dialect.name == "sqlite"


def _cursor(connection: Connection) -> closing[DBAPICursor]:
    """SQLite's own cursor in the connection's transaction: each write of a client waits for these few statements, and
    SQLAlchemy takes longer over them than SQLite. Closed in any case: one that is left keeps a broken file open."""
    return closing(connection.connection.cursor())


def close_mark(seq: int, settles: ColumnElement[Any] | None, connection: Connection) -> None:
    """End a write, or say when it will have."""
    if settles is None and _is_sqlite(connection):
        with _cursor(connection) as cursor:
            cursor.execute("DELETE FROM crossfade_open_writes WHERE seq = ?", (seq,))
    elif settles is None:
        connection.execute(delete(open_writes).where(open_writes.c.seq == seq))
    else:
        connection.execute(update(open_writes).where(open_writes.c.seq == seq).values(settles=settles))


def close_writer(writer: str, settles: ColumnElement[Any], now: float, connection: Connection) -> int:
    """Close what is open; a write without keys has made points whose ids nobody was told: it may be any."""
    mine = and_(open_writes.c.writer == writer, open_writes.c.settles.is_(None))
    bare = and_(mine, ~exists().where(marks.c.seq == open_writes.c.seq))
    for row in connection.execute(select(open_writes.c.migration, open_writes.c.seq).where(bare)).all():
        add_keys(Mark(row.migration, row.seq), [ALL], now, connection)
    return connection.execute(update(open_writes).where(mine).values(settles=settles)).rowcount


def clear(migration: str, done: Sequence[Dirty], now: ColumnElement[Any], connection: Connection) -> int:
    """Remove marks that were seen; how many they were."""
    removed = 0
    seen = [(ALL if one.point is None else write_key(one.point), seq) for one in done for seq in one.ended]
    for first in range(0, len(seen), _ROWS):
        part = seen[first : first + _ROWS]
        named = marks.c.key.in_({key for key, _ in part})  # SQLite would look at all for pairs alone
        mine = and_(marks.c.migration == migration, named, tuple_(marks.c.key, marks.c.seq).in_(part))
        removed += connection.execute(delete(marks).where(mine)).rowcount
    settled = and_(open_writes.c.settles <= now, ~exists().where(marks.c.seq == open_writes.c.seq))
    connection.execute(delete(open_writes).where(open_writes.c.migration == migration, settled))
    return removed


def forget_natives(migration: str, rows: Sequence[tuple[str, int]], connection: Connection) -> None:
    """Remove vectors that later writes have replaced."""
    for key, seq in rows:
        mine = and_(natives.c.migration == migration, natives.c.key == key, natives.c.seq == seq)
        connection.execute(delete(natives).where(mine))


def forget(migration: str, connection: Connection) -> None:
    """Remove everything of a migration."""
    for table in (marks, natives, open_writes):
        connection.execute(delete(table).where(table.c.migration == migration))
