"""Migrations in a database: one row each, changed by comparing and setting; their history; and the controller's lease.

A change is a pure function from record to record, applied to what the row holds at that moment inside one writing
transaction, so that two who change at once both count. What the controller writes carries its lease: the token of the
newest holder is compared in the same transaction, and an older one is refused (fencing).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, insert, select, update

from .database import history, leases, migrations, open_database, reading, time_of, writing
from .errors import BadPlan, LeaseLost, UnknownMigration
from .machine import OVER, State
from .record import Migration, Spec

Change = Callable[[Migration], Migration]
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to be the one controller until `expires` (seconds since 1970)."""

    name: str
    holder: str
    token: int
    expires: float


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a migration's history."""

    at: float
    actor: str
    step: str
    source: str
    target: str
    reason: str


@dataclass(slots=True)
class Store:
    """Every method raises MigrationStorageError when the database cannot be read or written."""

    url: str
    clock: Callable[[], float] = time.time
    _engine: Engine = field(init=False)

    def __post_init__(self) -> None:
        self._engine = open_database(self.url)

    def shut(self) -> None:
        """Close the database."""
        self._engine.dispose()

    async def plan(self, spec: Spec, actor: str, reason: str, **update: Any) -> Migration:
        """Add a migration, with what else of the record is given. Raises BadPlan when its collection has one that is
        not over, or one whose target stands in its place."""

        def add(connection: Connection) -> Migration:
            current = [one for one in _read(connection) if one.spec.collection == spec.collection]
            check_free(current)
            made = Migration(id=uuid.uuid4().hex[:12], spec=spec, **update)
            row = {"id": made.id, "collection": spec.collection, "record": made.model_dump_json()}
            connection.execute(insert(migrations).values(**row))
            self._note(connection, made.id, actor, "plan", "", made.state, reason)
            return made

        return await self.write(add)

    async def read(self, migration: str) -> Migration:
        """A migration by its id. Raises UnknownMigration."""

        def find(connection: Connection) -> Migration:
            return _one(connection, migration)

        return await self.look(find)

    async def find(self, collection: str) -> Migration:
        """The newest migration of a collection. Raises UnknownMigration."""
        everything = await self.read_all()
        mine = [one for one in everything if one.spec.collection == collection]
        if not mine:
            raise UnknownMigration(collection=collection, known=sorted({one.spec.collection for one in everything}))
        return mine[-1]

    async def read_all(self) -> Sequence[Migration]:
        """Every migration, the oldest first."""
        return await self.look(_read)

    async def change(
        self,
        migration: str,
        change: Change,
        *,
        actor: str = "controller",
        step: str = "",
        reason: str = "",
        lease: Lease | None = None,
    ) -> Migration:
        """Change a record; told in the history when `step` names what was done or the state moves.

        Raises what `change` raises, leaving all as it was; UnknownMigration; LeaseLost.
        """

        def apply(connection: Connection) -> Migration:
            before = _one(connection, migration)
            after = change(before).model_copy(update={"version": before.version + 1})
            row = update(migrations).where(migrations.c.id == migration)
            connection.execute(row.values(record=after.model_dump_json()))
            if step or after.state != before.state:
                self._note(connection, migration, actor, step, before.state, after.state, reason)
            return after

        return await self.write(apply, lease)

    async def events(self, migration: str) -> Sequence[Event]:
        """The history, the oldest first."""

        def find(connection: Connection) -> list[Event]:
            query = select(history).where(history.c.migration == migration).order_by(history.c.number)
            return [
                Event(row.at, row.actor, row.step, row.source, row.target, row.reason)
                for row in connection.execute(query)
            ]

        return await self.look(find)

    async def acquire(self, name: str, holder: str, ttl: float, *, abandoned: int | None = None) -> Lease | None:
        """Take a lease that is free or has expired, with a token above all before; None while another holds it.

        `abandoned`: the token of a holder that is known to be gone, which need not have expired.
        """

        def take(connection: Connection) -> Lease | None:
            now = self.now(connection)
            row = connection.execute(select(leases).where(leases.c.name == name)).one_or_none()
            if row is None:
                made = Lease(name, holder, 1, now + ttl)
                connection.execute(insert(leases).values(name=name, holder=holder, token=1, expires=made.expires))
                return made
            if row.expires > now and row.token != abandoned:
                return None
            taken = Lease(name, holder, row.token + 1, now + ttl)
            values = {"holder": holder, "token": taken.token, "expires": taken.expires}
            connection.execute(update(leases).where(leases.c.name == name).values(**values))
            return taken

        return await self.write(take)

    async def renew(self, lease: Lease, ttl: float) -> Lease:
        """Hold a lease longer. Raises LeaseLost."""

        def prolong(connection: Connection) -> Lease:
            expires = self.now(connection) + ttl
            connection.execute(update(leases).where(leases.c.name == lease.name).values(expires=expires))
            return Lease(lease.name, lease.holder, lease.token, expires)

        return await self.write(prolong, lease)

    async def leader(self, name: str) -> Lease | None:
        """Who has held a lease last, whether or not it has expired; None when nobody ever has."""

        def find(connection: Connection) -> Lease | None:
            row = connection.execute(select(leases).where(leases.c.name == name)).one_or_none()
            return None if row is None else Lease(row.name, row.holder, row.token, row.expires)

        return await self.look(find)

    async def release(self, lease: Lease) -> None:
        """Let another controller follow at once. Raises LeaseLost."""
        await self.renew(lease, 0)

    def _note(
        self, connection: Connection, migration: str, actor: str, step: str, source: str, target: str, reason: str
    ) -> None:
        row = {"migration": migration, "at": self.clock(), "actor": actor, "step": step}
        connection.execute(insert(history).values(**row, source=source, target=target, reason=reason))

    def now(self, connection: Connection) -> float:
        """Seconds since 1970, by the clock that everybody who shares the store goes by."""
        return float(connection.execute(select(time_of(connection.dialect.name, self.clock))).scalar_one())

    async def look(self, work: Callable[[Connection], Result]) -> Result:
        """Read something in one consistent view of the database."""

        def run() -> Result:
            with reading(self._engine) as connection:
                return work(connection)

        return await asyncio.to_thread(run)

    async def write(self, work: Callable[[Connection], Result], lease: Lease | None = None) -> Result:
        """Write something in one transaction. Raises LeaseLost, having written nothing, when the lease is not the
        newest."""

        def run() -> Result:
            with writing(self._engine, alone=True) as connection:
                _fence(connection, lease)
                return work(connection)

        return await asyncio.to_thread(run)


def check_free(migrations: Sequence[Migration]) -> None:
    """Refuse another migration of a collection with these, the oldest first. Raises BadPlan."""
    if not migrations:
        return
    spec, state = migrations[-1].spec, migrations[-1].state
    if state not in OVER:
        raise BadPlan(
            collection=spec.collection,
            reason=f"it is being migrated already, to {spec.to_model!r}, and is {state}; complete or cancel that first",
        )
    if state is State.COMPLETED and not migrations[-1].drop_old:
        raise BadPlan(
            collection=spec.collection,
            reason=f"its points are in {spec.target!r} since it was completed; "
            f"crossfade migrate complete {spec.collection} --drop-old gives that one its name first",
        )


def _fence(connection: Connection, lease: Lease | None) -> None:
    if lease is None:
        return
    row = connection.execute(select(leases).where(leases.c.name == lease.name)).one()
    if row.token != lease.token:
        reason = f"{row.holder} has taken over with token {row.token}"
        raise LeaseLost(name=lease.name, holder=lease.holder, token=lease.token, reason=reason)


def _read(connection: Connection) -> list[Migration]:
    rows = connection.scalars(select(migrations.c.record).order_by(migrations.c.number))
    return [Migration.model_validate_json(row) for row in rows]


def _one(connection: Connection, migration: str) -> Migration:
    row = connection.scalar(select(migrations.c.record).where(migrations.c.id == migration))
    if row is None:
        known = connection.scalars(select(migrations.c.collection).distinct())
        raise UnknownMigration(collection=migration, known=sorted(known))
    return Migration.model_validate_json(row)
