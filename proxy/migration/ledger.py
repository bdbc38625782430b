"""Notes on single points: why one could not be brought over, the signature of what was written, what is wrong with it.

A signature has one bit for each of the first coordinates: whether it is greater than the next one. Databases scale
the vectors of cosine collections and keep others as they are; the bits stay the same either way, up to one where two
neighbours differ by a rounding error, and the vectors of two texts share about half of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
from sqlalchemy import Connection, Table, delete, func, insert, select

from crossfade.backends.dialect import Float32
from crossfade.backends.index import PointId

from .database import dead_letters, findings, signatures
from .keys import read_key, write_key
from .store import Lease, Store

_BITS: Final = 128
_ROUNDED: Final = 2  # bits that rounding may have turned
_CHUNK: Final = 500
_ROWS: Final = 200  # of up to four values, of which SQLite took at most 999 once


def sign_vector(vector: Float32) -> bytes:
    """The signature of a vector (dim,), the same after scaling by any positive number."""
    return np.packbits(vector[: _BITS + 1][:-1] > vector[: _BITS + 1][1:]).tobytes()


def sign_vectors(vectors: Mapping[PointId, Float32]) -> dict[PointId, bytes]:
    """The signatures of many vectors (dim,) of one model."""
    if not vectors:
        return {}
    heads = np.stack([vector[: _BITS + 1] for vector in vectors.values()])
    return dict(zip(vectors, map(bytes, np.packbits(heads[:, :-1] > heads[:, 1:], axis=1)), strict=True))


def agrees(signature: bytes, vector: Float32) -> bool:
    """Whether a vector read back is the one that was signed."""
    bits = np.frombuffer(signature, np.uint8) ^ np.frombuffer(sign_vector(vector), np.uint8)
    return int(np.unpackbits(bits).sum()) <= _ROUNDED


@dataclass(frozen=True, slots=True)
class Ledger:
    """The notes of every migration in a store; writing them raises LeaseLost when the lease is not the newest."""

    store: Store

    async def note_moved(
        self,
        migration: str,
        *,
        signed: Mapping[PointId, bytes],
        unsigned: Sequence[PointId],
        dead: Mapping[PointId, str],
        healed: Sequence[PointId],
        lease: Lease,
    ) -> None:
        """Keep the signatures of vectors that were written and why points have none; forget what was before."""
        signatures_now = [{"key": write_key(point), "signature": value} for point, value in signed.items()]
        letters = [{"key": write_key(point), "reason": why, "at": self.store.clock()} for point, why in dead.items()]

        def keep(connection: Connection) -> None:
            _replace(connection, signatures, migration, signatures_now, [*signed, *unsigned])
            _replace(connection, dead_letters, migration, letters, [*dead, *healed])
            _replace(connection, findings, migration, [], [*signed, *unsigned])

        await self.store.write(keep, lease)

    async def dead(self, migration: str, limit: int = 100) -> tuple[int, Mapping[PointId, str]]:
        """How many points could not be brought over, and up to `limit` of them with the reason."""

        def find(connection: Connection) -> tuple[int, dict[PointId, str]]:
            mine = dead_letters.c.migration == migration
            count = connection.execute(select(func.count()).select_from(dead_letters).where(mine)).scalar_one()
            rows = connection.execute(select(dead_letters).where(mine).order_by(dead_letters.c.at).limit(limit))
            return count, {read_key(row.key): row.reason for row in rows}

        return await self.store.look(find)

    async def dead_among(self, migration: str, points: Sequence[PointId]) -> frozenset[PointId]:
        """Those of these points that could not be brought over whole."""

        def find(connection: Connection) -> frozenset[PointId]:
            found: set[PointId] = set()
            for chunk in _chunks(points):
                mine = dead_letters.c.migration == migration
                query = select(dead_letters.c.key).where(mine, dead_letters.c.key.in_(chunk))
                found |= {read_key(key) for key in connection.scalars(query)}
            return frozenset(found)

        return await self.store.look(find)

    async def signed(self, migration: str, points: Sequence[PointId]) -> Mapping[PointId, bytes]:
        """The signatures kept for these points."""

        def find(connection: Connection) -> dict[PointId, bytes]:
            found: dict[PointId, bytes] = {}
            for chunk in _chunks(points):
                query = select(signatures).where(signatures.c.migration == migration, signatures.c.key.in_(chunk))
                found |= {read_key(row.key): row.signature for row in connection.execute(query)}
            return found

        return await self.store.look(find)

    async def report(
        self, migration: str, found: Mapping[PointId, str], sound: Sequence[PointId], lease: Lease
    ) -> None:
        """Keep what a verification found wrong, by kind, and forget it for points that are sound."""
        rows = [{"key": write_key(point), "kind": kind} for point, kind in found.items()]

        def keep(connection: Connection) -> None:
            _replace(connection, findings, migration, rows, [*found, *sound])

        await self.store.write(keep, lease)

    async def found(self, migration: str, limit: int | None = 1000) -> Mapping[PointId, str]:
        """What verifications found wrong and nothing has brought over since."""

        def find(connection: Connection) -> dict[PointId, str]:
            query = select(findings).where(findings.c.migration == migration).limit(limit)
            return {read_key(row.key): row.kind for row in connection.execute(query)}

        return await self.store.look(find)

    async def forget(self, migration: str, lease: Lease) -> None:
        """Remove the notes of a migration that is over."""

        def drop(connection: Connection) -> None:
            for table in (dead_letters, signatures, findings):
                connection.execute(delete(table).where(table.c.migration == migration))

        await self.store.write(drop, lease)


def _replace(
    connection: Connection, table: Table, migration: str, rows: list[dict[str, Any]], instead_of: Sequence[PointId]
) -> None:
    if connection.dialect.name == "sqlite":
        _replace_quickly(connection, table, migration, rows, instead_of)
        return
    for chunk in _chunks(instead_of):
        connection.execute(delete(table).where(table.c.migration == migration, table.c.key.in_(chunk)))
    if rows:
        connection.execute(insert(table), [{"migration": migration, **row} for row in rows])


def _replace_quickly(
    connection: Connection, table: Table, migration: str, rows: list[dict[str, Any]], instead_of: Sequence[PointId]
) -> None:
    """On SQLite's own cursor, many rows in a statement: SQLAlchemy takes long over a page of keys, and at each
    statement the driver lets go of the interpreter and waits to have it again."""
    columns = [column.name for column in table.columns if column.name != "migration"]
    places = f"({', '.join('?' * (1 + len(columns)))})"
    with closing(connection.connection.cursor()) as cursor:
        cursor.execute(f"SELECT 1 FROM {table.name} WHERE migration = ? LIMIT 1", (migration,))
        if cursor.fetchone() is not None:  # of most migrations nothing has to be said but the signatures
            past = sorted({write_key(point) for point in instead_of} - {row["key"] for row in rows})
            for first in range(0, len(past), _ROWS):
                part = past[first : first + _ROWS]
                keys = ", ".join("?" * len(part))
                cursor.execute(f"DELETE FROM {table.name} WHERE migration = ? AND key IN ({keys})", [migration, *part])
        for first in range(0, len(rows), _ROWS):
            values = [[migration, *(row[name] for name in columns)] for row in rows[first : first + _ROWS]]
            statement = f"INSERT OR REPLACE INTO {table.name} (migration, {', '.join(columns)}) VALUES "
            cursor.execute(statement + ", ".join([places] * len(values)), list(chain.from_iterable(values)))


def _chunks(points: Sequence[PointId]) -> Iterator[list[str]]:
    keys = [write_key(point) for point in points]
    for first in range(0, len(keys), _CHUNK):
        yield keys[first : first + _CHUNK]
