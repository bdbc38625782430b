"""The journal of dirty keys: which points writes have touched since they were last brought over.

The protocol of a writer (the data plane, for each write that passes while `MigrationView.captures` is true):

1. `mark = await journal.mark(migration, ids, writer)`: the ids, resolved first where the write goes by a filter. When
   it returns, the marks are on stable storage. When the ids cannot be known, or data moves past the proxy,
   `mark_all`. When it raises, nothing may be forwarded, unless the operator wants writes to fail open.
2. Forward the write to the old index, and let its answer go to the client.
3. `await journal.close(mark)` once the write has certainly ended: answered, or refused before it was sent. After a
   timeout or a lost connection nobody knows whether it will still happen: `close(mark, settles_in=seconds)`, with
   more seconds than the database may go on working on it.

A writer's name is one process's, never used again (host, pid and start time). When a process ends, whoever notices
calls `close_dead(writer, settles_in=seconds)`.

The controller reads `dirty`, then the points, writes what it read to the target, and calls `clear`. A mark goes away
only if its write had ended BEFORE `dirty` was asked, so that the point read afterwards shows it; marks that came later
are not touched, because `clear` removes exactly the marks that `dirty` had seen. A point that is written to
all the time is brought over all the same: each of its marks goes when its own write has ended.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from sqlalchemy import (
    ColumnElement,
    RowMapping,
    Select,
    and_,
    func,
    select,
)

from crossfade.backends.index import PointId

from . import journal_rows
from .committer import Committer
from .database import marks, natives, open_database, open_writes, reading, time_of
from .journal_rows import ALL
from .keys import read_key, write_key
from .marks import Dirty, Mark, Native

_AGAIN_SECONDS = 1.0
_CHUNK = 500  # keys in one statement

__all__ = ["Backlog", "Dirty", "Journal", "Mark", "Native"]

log = logging.getLogger("crossfade.migration.journal")


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many points wait, and for how many seconds the oldest of those has that can be brought over (0: none can).

    A write under way, or one of unknown end that has not settled, keeps its points waiting without anything being late.
    """

    count: int
    age: float


@dataclass(slots=True)
class Journal:
    """The journal in a database; any number of processes use one at the same time.

    Every method raises MigrationStorageError when the database cannot be read or written.
    """

    url: str
    clock: Callable[[], float] = time.time
    _committer: Committer = field(init=False)

    def __post_init__(self) -> None:
        self._committer = Committer(open_database(self.url), "crossfade-journal")

    async def mark(
        self,
        migration: str,
        keys: Sequence[PointId],
        writer: str,
        natives: Mapping[PointId, Native] | None = None,
    ) -> Mark:
        """Announce a write that touches these points, durably; marks that wait together share one commit."""
        return await self._wait(self.announce(migration, keys, writer, natives), migration)

    def announce(
        self,
        migration: str,
        keys: Sequence[PointId],
        writer: str,
        natives: Mapping[PointId, Native] | None = None,
    ) -> Future[int]:
        """The same for those who do not wait: the mark's number, once it is on stable storage."""
        rows = list(dict.fromkeys(map(write_key, keys)))
        return self._submit(migration, rows, writer, natives)

    async def mark_all(self, migration: str, writer: str, natives: Mapping[PointId, Native] | None = None) -> Mark:
        """Announce a change that may touch any point: a restored snapshot, a filter that cannot be resolved."""
        return await self._wait(self._submit(migration, [ALL], writer, natives), migration)

    def _submit(
        self, migration: str, rows: Sequence[str], writer: str, natives: Mapping[PointId, Native] | None
    ) -> Future[int]:
        given = {write_key(point): native for point, native in (natives or {}).items()}
        work = partial(journal_rows.insert_mark, migration, rows, writer, given, self.clock())
        return self._committer.submit(work, durable=True)

    async def _wait(self, committed: Future[int], migration: str) -> Mark:
        try:
            return Mark(migration, await asyncio.shield(asyncio.wrap_future(committed)))
        except asyncio.CancelledError:  # the caller has gone and forwards nothing: its mark must not stay open
            committed.add_done_callback(self._retract)
            raise

    def _retract(self, committed: Future[int]) -> None:
        if committed.exception() is None:
            self._committer.submit(partial(journal_rows.close_mark, committed.result(), None), durable=False)

    async def close(self, mark: Mark, *, settles_in: float | None = None) -> None:
        """Say that a write has ended, or that it will have in so many seconds where nobody can tell.

        A writer outlives a crash of PostgreSQL's server: a close that is forgotten there would leave its mark open for
        good. A machine that loses SQLite's last closes has lost its writers as well, and `close_dead` follows.
        """
        durable = self._committer.engine.dialect.name != "sqlite"
        await self._committer.run(
            partial(journal_rows.close_mark, mark.seq, self._settles(settles_in)), durable=durable
        )

    def close_soon(self, mark: Mark, settles_in: float | None = None) -> None:
        """The same without waiting for it: what is asked of this journal afterwards comes after it."""
        durable = self._committer.engine.dialect.name != "sqlite"
        # By itself it would cost as much as a mark, and keep the one that comes next waiting.
        closed = self._committer.submit(
            partial(journal_rows.close_mark, mark.seq, self._settles(settles_in)), durable=durable, patient=True
        )

        def hear(done: Future[None]) -> None:
            """A mark that stays open keeps its points from being brought over, so it is tried until it works."""
            if (error := done.exception()) is not None:
                log.error("a write cannot be closed, and is tried again: %s", error)
                later = threading.Timer(_AGAIN_SECONDS, self.close_soon, (mark, settles_in))
                later.daemon = True
                later.start()

        closed.add_done_callback(hear)

    def add_soon(self, mark: Mark, keys: Sequence[PointId] | None) -> None:
        """Say what a write touches that was announced without keys (None: anything), before it is closed.

        When that is lost, the write has no keys for whoever closes it after its writer's end, and may be any.
        """
        touched = [ALL] if keys is None else list(dict.fromkeys(map(write_key, keys)))
        self._committer.submit(partial(journal_rows.add_keys, mark, touched, self.clock()), durable=False)

    async def stands(self, mark: Mark) -> bool:
        """Whether anything that a write touched is still to be brought over."""
        return await asyncio.to_thread(self._stands, mark.seq)

    def _stands(self, seq: int) -> bool:
        with reading(self._committer.engine) as connection:
            return connection.scalar(select(marks.c.seq).where(marks.c.seq == seq).limit(1)) is not None

    async def newest(self, migration: str) -> int:
        """The newest mark that is there, 0 when there is none."""
        return await asyncio.to_thread(self._edge, select(func.max(marks.c.seq)).where(marks.c.migration == migration))

    async def oldest_ended(self, migration: str) -> int | None:
        """The oldest mark whose write has ended and which was not brought over yet."""
        joined = marks.outerjoin(open_writes, open_writes.c.seq == marks.c.seq)
        ended = and_(marks.c.migration == migration, journal_rows.is_open(self._now()) == 0)
        query = select(func.min(marks.c.seq)).select_from(joined).where(ended)
        return await asyncio.to_thread(self._edge, query) or None

    def _edge(self, query: Select[tuple[int]]) -> int:
        with reading(self._committer.engine) as connection:
            return connection.scalar(query) or 0

    async def open_writers(self) -> Sequence[str]:
        """Writers with writes under way."""
        return await asyncio.to_thread(self._open_writers)

    def _open_writers(self) -> list[str]:
        with reading(self._committer.engine) as connection:
            query = select(open_writes.c.writer).where(open_writes.c.settles.is_(None)).distinct()
            return sorted(connection.scalars(query))

    async def close_dead(self, writer: str, *, settles_in: float) -> int:
        """Close what a dead writer left open; its last requests may still reach the database for so many seconds."""
        work = partial(journal_rows.close_writer, writer, self._now() + settles_in, self.clock())
        return await self._committer.run(work, durable=True)

    def _now(self) -> ColumnElement[Any]:
        return time_of(self._committer.engine.dialect.name, self.clock)

    def _settles(self, settles_in: float | None) -> ColumnElement[Any] | None:
        return None if settles_in is None else self._now() + settles_in

    async def dirty(self, migration: str, limit: int) -> Sequence[Dirty]:
        """Up to `limit` touched points: those with writes that have ended first, the longest waiting before others."""
        return await asyncio.to_thread(self._dirty, migration, limit)

    async def whole(self, migration: str) -> Dirty | None:
        """The marks that stand for every point, if there are any."""
        found = await asyncio.to_thread(self._dirty, migration, 1, marks.c.key == ALL)
        return found[0] if found else None

    def _dirty(self, migration: str, limit: int, only: ColumnElement[bool] | None = None) -> list[Dirty]:
        is_open = journal_rows.is_open(self._now())
        mine = marks.c.migration == migration if only is None else and_(marks.c.migration == migration, only)
        joined = marks.outerjoin(open_writes, open_writes.c.seq == marks.c.seq)
        first = (
            select(marks.c.key, func.min(is_open).label("waits"), func.min(marks.c.seq).label("first"))
            .select_from(joined)
            .where(mine)
            .group_by(marks.c.key)
            .order_by("waits", "first")
            .limit(limit)
            .subquery()
        )
        query = (
            select(marks.c.key, marks.c.seq, is_open.label("open"))
            .select_from(joined.join(first, first.c.key == marks.c.key))
            .where(marks.c.migration == migration)
            .order_by(first.c.waits, first.c.first, marks.c.seq)
        )
        found: dict[str, list[RowMapping]] = {}
        with reading(self._committer.engine) as connection:
            for row in connection.execute(query).mappings():
                found.setdefault(row["key"], []).append(row)
        return [journal_rows.read_dirty(key, rows) for key, rows in found.items()]

    async def touched(self, migration: str, keys: Sequence[PointId]) -> frozenset[PointId]:
        """Those of these points that have marks."""
        return await asyncio.to_thread(self._touched, migration, [write_key(point) for point in keys])

    def _touched(self, migration: str, keys: Sequence[str]) -> frozenset[PointId]:
        found: set[PointId] = set()
        with reading(self._committer.engine) as connection:
            for first in range(0, len(keys), _CHUNK):
                mine = and_(marks.c.migration == migration, marks.c.key.in_(keys[first : first + _CHUNK]))
                found |= {read_key(key) for key in connection.scalars(select(marks.c.key).where(mine))}
        return frozenset(found)

    async def clear(self, migration: str, done: Sequence[Dirty]) -> int:
        """Remove marks of points that were brought over; those unseen by `dirty`, or of writes then under way, stay.

        Returns how many marks were removed.
        """
        ended = [one for one in done if one.ended]
        if not ended:
            return 0
        return await self._committer.run(partial(journal_rows.clear, migration, ended, self._now()), durable=False)

    async def backlog(self, migration: str) -> Backlog:
        """How much waits."""
        return await asyncio.to_thread(self._backlog, migration)

    def _backlog(self, migration: str) -> Backlog:
        ready = journal_rows.ready_since(self._now())
        joined = marks.outerjoin(open_writes, open_writes.c.seq == marks.c.seq)
        query = select(func.count(marks.c.key.distinct()), func.min(ready)).select_from(joined)
        with reading(self._committer.engine) as connection:
            count, oldest = connection.execute(query.where(marks.c.migration == migration)).one()
        return Backlog(count, 0.0 if oldest is None else max(0.0, self.clock() - oldest))

    async def natives(self, migration: str, keys: Sequence[PointId]) -> Mapping[PointId, Sequence[Native]]:
        """New-model vectors that clients sent for these points, the newest first."""
        return await asyncio.to_thread(self._natives, migration, [write_key(point) for point in keys])

    def _natives(self, migration: str, keys: Sequence[str]) -> dict[PointId, list[Native]]:
        found: dict[PointId, list[Native]] = {}
        columns = (*natives.c, journal_rows.is_open(self._now()).label("open"))
        joined = natives.outerjoin(open_writes, open_writes.c.seq == natives.c.seq)
        with reading(self._committer.engine) as connection:
            if connection.scalar(select(natives.c.seq).where(natives.c.migration == migration).limit(1)) is None:
                return {}  # where no client sends any, as in most migrations, nothing is asked key by key
            for first in range(0, len(keys), _CHUNK):
                query = (
                    select(*columns)
                    .select_from(joined)
                    .where(natives.c.migration == migration, natives.c.key.in_(keys[first : first + _CHUNK]))
                    .order_by(natives.c.seq.desc())
                )
                for row in connection.execute(query):
                    stored, vector = np.frombuffer(row.stored, "<f4"), np.frombuffer(row.vector, "<f4")
                    native = Native(stored, vector, row.seq, not row.open)
                    found.setdefault(read_key(row.key), []).append(native)
        return found

    async def forget_natives(self, migration: str, past: Mapping[PointId, Sequence[int]]) -> None:
        """Remove vectors that clients sent, by point and the numbers of their writes' marks."""
        rows = [(write_key(point), seq) for point, seqs in past.items() for seq in seqs]
        if rows:
            await self._committer.run(partial(journal_rows.forget_natives, migration, rows), durable=False)

    async def forget(self, migration: str) -> None:
        """Remove everything of a migration that has ended."""
        await self._committer.run(partial(journal_rows.forget, migration), durable=True)

    def shut(self) -> None:
        """Commit what waits, and close the database."""
        self._committer.shut()
