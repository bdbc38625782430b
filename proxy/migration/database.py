"""The tables of migrations, on SQLite (one machine) or PostgreSQL (several), and how their transactions are made.

SQLite runs in WAL mode with synchronous=FULL: a transaction that has returned survives the loss of power. Writing
transactions take the write lock at their begin, so that what they read cannot change before they write. On SQLite, give
journal and store a file each: nothing joins them in one transaction, and a journal under heavy writing would keep the
controller waiting for its lease.

On PostgreSQL the writers of several machines stand side by side; whoever needs to be alone says `alone`. Times that
processes compare with each other are the server's there: a machine's wrong clock ends no lease and no write early.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    cast,
    create_engine,
    event,
    func,
    literal,
    make_url,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from .errors import MigrationStorageError
from .same_file import has_its_file, watch_file

_BUSY_SECONDS: Final = 30.0
_WRITES: Final = "crossfade_writes"
_PATIENCE: Final = {"connect_timeout": "5"}  # of a server, unless its URL says otherwise
_ALONE: Final = 0x63726F7373  # the advisory lock of those who write alone on PostgreSQL

metadata = MetaData()
_Number = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts by itself only in an INTEGER

# One row for each write that has been announced and has not ended; `settles`: when one of unknown end counts as ended.
open_writes = Table(
    "crossfade_open_writes",
    metadata,
    Column("seq", _Number, primary_key=True, autoincrement=True),
    Column("migration", Text, nullable=False),
    Column("writer", Text, nullable=False, index=True),
    Column("settles", Float),
    sqlite_autoincrement=True,  # a number is never given twice, also after its row has gone
)
# One row for each key and write that touched it.
marks = Table(
    "crossfade_marks",
    metadata,
    Column("migration", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("seq", _Number, primary_key=True, autoincrement=False),
    Column("marked", Float, nullable=False),
    sqlite_with_rowid=False,  # one tree less to write for each mark
)
# Vectors of the new model that clients sent, beside what was stored in the old index in their place.
natives = Table(
    "crossfade_natives",
    metadata,
    Column("migration", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("seq", _Number, primary_key=True, autoincrement=False),
    Column("stored", LargeBinary, nullable=False),
    Column("vector", LargeBinary, nullable=False),
)
migrations = Table(
    "crossfade_migrations",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("collection", Text, nullable=False, index=True),
    Column("record", Text, nullable=False),
)
history = Table(
    "crossfade_history",
    metadata,
    Column("number", _Number, primary_key=True, autoincrement=True),
    Column("migration", Text, nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("actor", Text, nullable=False),
    Column("step", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("reason", Text, nullable=False),
)
leases = Table(
    "crossfade_leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("token", _Number, nullable=False),
    Column("expires", Float, nullable=False),
)
# One row for each replica that serves; `seen`: the version of each migration that all of it acts on, as JSON.
replicas = Table(
    "crossfade_replicas",
    metadata,
    Column("name", Text, primary_key=True),
    Column("seen", Text, nullable=False),
    Column("renewed", Float, nullable=False),
)
dead_letters = Table(
    "crossfade_dead_letters",
    metadata,
    Column("migration", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("at", Float, nullable=False),
)
signatures = Table(
    "crossfade_signatures",
    metadata,
    Column("migration", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("signature", LargeBinary, nullable=False),
)
findings = Table(
    "crossfade_findings",
    metadata,
    Column("migration", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("kind", Text, nullable=False),
)
Index("crossfade_marks_seq", marks.c.seq)


def open_database(url: str) -> Engine:
    """An engine with every table made. Raises MigrationStorageError naming the URL."""
    engine = _make_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _set_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    with explained(engine):
        _make_tables(engine)
    if engine.dialect.name == "sqlite":
        watch_file(engine)
    return engine


def _make_engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        if parsed.get_backend_name() == "sqlite":
            return create_engine(parsed)
        # A server that was started again has closed the connections of before.
        return create_engine(parsed.update_query_dict(_PATIENCE | dict(parsed.query)), pool_pre_ping=True)
    except ArgumentError as error:
        raise MigrationStorageError(place=repr(url.split("@")[-1]), reason=str(error)) from error
    except ModuleNotFoundError as error:
        reason = f"the driver {error.name!r} is missing; pip install 'crossfade[postgres]'"
        raise MigrationStorageError(place=parsed.render_as_string(hide_password=True), reason=reason) from error


def _make_tables(engine: Engine) -> None:
    """Make the tables; another process that makes them at the same moment is waited for."""
    for attempt in range(5):
        try:
            with engine.execution_options(**{_WRITES: True}).begin() as connection:
                _stand_alone(connection)
                metadata.create_all(connection)
            return
        except (OperationalError, DBAPIError):
            if attempt == 4:
                raise
            time.sleep(0.05 * 2**attempt)


def _set_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where _begin_sqlite says, not where the driver guesses
    connection.execute(f"PRAGMA busy_timeout = {int(_BUSY_SECONDS * 1000)}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    _run_sqlite(connection, "BEGIN IMMEDIATE" if writes else "BEGIN")


def _run_sqlite(connection: Connection, statement: str) -> None:
    """By SQLite's own connection: what SQLAlchemy does around a statement takes longer than a whole transaction."""
    with closing(connection.connection.cursor()) as cursor:
        cursor.execute(statement)


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One consistent view of the tables."""
    options = {} if engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
    with explained(engine), engine.connect().execution_options(**options) as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine, *, durable: bool = True, alone: bool = False) -> Iterator[Connection]:
    """One transaction; on stable storage when it has ended, unless `durable` is False.

    `alone`: what it reads cannot change before it writes. SQLite's writers always are.
    """
    with explained(engine), engine.connect().execution_options(**{_WRITES: True}) as connection:
        if engine.dialect.name == "sqlite":
            _set_durable(connection, durable)
        with connection.begin():
            if engine.dialect.name == "postgresql" and not durable:
                connection.exec_driver_sql("SET LOCAL synchronous_commit TO off")
            if alone:
                _stand_alone(connection)
            yield connection


def _set_durable(connection: Connection, durable: bool) -> None:
    """Outside of a transaction, where alone SQLite takes it."""
    _run_sqlite(connection, f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")


class Desk:
    """Writing transactions of one thread, which on SQLite keeps its connection: getting one takes half of a mark."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._kept: Connection | None = None
        self._durable: bool | None = None

    @contextmanager
    def writing(self, *, durable: bool) -> Iterator[Connection]:
        """See `writing`; what has raised leaves no connection behind."""
        if self.engine.dialect.name != "sqlite":
            with writing(self.engine, durable=durable) as connection:
                yield connection
            return
        try:
            with explained(self.engine):
                kept = self._keep(durable)
                with kept.begin():
                    yield kept
        except BaseException:
            self.clear()
            raise

    def _keep(self, durable: bool) -> Connection:
        if self._kept is not None and not has_its_file(self._kept):
            self.clear()
        if self._kept is None:
            self._kept = self.engine.connect().execution_options(**{_WRITES: True})
        if durable is not self._durable:
            _set_durable(self._kept, durable)
            self._durable = durable
        return self._kept

    def clear(self) -> None:
        """Close what is kept: a connection from a disk that could not be written stays read-only for ever."""
        kept, self._kept, self._durable = self._kept, None, None
        if kept is not None:
            kept.invalidate()
            kept.close()
        self.engine.dispose()


def _stand_alone(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ALONE})")


def time_of(dialect: str, clock: Callable[[], float]) -> ColumnElement[Any]:
    """Now, in seconds since 1970: by the server where processes of several machines meet, unless a clock is given."""
    if dialect == "postgresql" and clock is time.time:
        return cast(func.extract("epoch", func.clock_timestamp()), Float)
    return literal(clock(), Float)


@contextmanager
def explained(engine: Engine) -> Iterator[None]:
    """Turn the driver's errors into one that names the database."""
    try:
        yield
    except (DBAPIError, PoolTimeout, sqlite3.Error) as error:
        place = engine.url.render_as_string(hide_password=True)
        reason = error.orig if isinstance(error, DBAPIError) else error
        raise MigrationStorageError(place=place, reason=str(reason)) from error
