"""Replicas that share a store: which of them serve, and up to which version each acts on every migration.

Each supervisor renews its row; who leads waits for all rows. A replica that cannot renew any more cannot learn that a
migration has begun, so its workers refuse writes to what is or may be migrated once its term has run out. Others stop
waiting for it only after that, when its last writes have ended too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
from sqlalchemy import Connection, delete, insert, select

from .database import replicas
from .store import Store

TERM: Final = 12.0  # seconds after a renewal during which a replica may act on what it knows
GONE: Final = 25.0  # seconds after which nobody waits for one that has not renewed: its last writes have ended


@dataclass(frozen=True, slots=True)
class Replica:
    """Another replica: its name (host:pid:start), and the version that it acts on, by migration."""

    name: str
    seen: Mapping[str, int]


@dataclass(slots=True)
class Replicas:
    """The rows of a store, as the replica of this name sees them."""

    store: Store
    name: str

    async def renew(self, seen: Mapping[str, int]) -> Sequence[Replica]:
        """Say what this replica acts on; returns the others. Raises MigrationStorageError."""

        def write(connection: Connection) -> Sequence[Replica]:
            now = self.store.now(connection)
            gone = replicas.c.renewed < now - GONE
            connection.execute(delete(replicas).where((replicas.c.name == self.name) | gone))
            stated = orjson.dumps(dict(seen)).decode()
            connection.execute(insert(replicas).values(name=self.name, seen=stated, renewed=now))
            rows = connection.execute(select(replicas).where(replicas.c.name != self.name)).all()
            return [Replica(row.name, orjson.loads(row.seen)) for row in rows]

        return await self.store.write(write)

    async def leave(self) -> None:
        """Serve no more. Raises MigrationStorageError."""

        def write(connection: Connection) -> None:
            connection.execute(delete(replicas).where(replicas.c.name == self.name))

        await self.store.write(write)
