"""Whether a SQLite connection still has the file that its path names.

SQLite itself goes on writing to one that was moved away or deleted: what it wrote would be on stable storage where
nobody reads it.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DisconnectionError

_KEY = "crossfade_file"


def watch_file(engine: Engine) -> None:
    """Give up connections whose file is not there any more, whenever one is taken from the pool; make no file anew.

    For an engine whose tables have been made: an empty database in the place of a lost one would hide the loss.
    """
    path = engine.url.database
    if not path or path == ":memory:":
        return
    engine.dispose()  # the connections of before were not looked at

    def refuse_gone(*_: object) -> None:
        if _identity(path) is None:
            raise sqlite3.OperationalError(f"unable to open database file: {path} is not there")

    def remember(_connection: object, record: Any) -> None:
        record.info[_KEY] = _identity(path)

    def compare(_connection: object, record: Any, _fairy: object) -> None:
        if record.info.get(_KEY) != _identity(path):
            raise DisconnectionError(f"{path} is another file now")

    event.listen(engine, "do_connect", refuse_gone)
    event.listen(engine, "connect", remember)
    event.listen(engine, "checkout", compare)


def has_its_file(connection: Connection) -> bool:
    """Whether a connection that was kept still has the file of its path."""
    path = connection.engine.url.database
    return not path or connection.connection.info.get(_KEY) == _identity(path)


def _identity(path: str) -> tuple[int, int] | None:
    with suppress(OSError):
        found = os.stat(path)
        return found.st_dev, found.st_ino
    return None
