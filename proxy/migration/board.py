"""What the workers are told of migrations, and whether all of them act on it: the supervisor's side.

Views are published when they say something new, not with every point that is copied: a worker that takes up a view
decides all its collections again. So the version that workers know may be older than the record's; the board remembers
up to which version of the record the published view is still what that record says.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import Config
from ..journals import is_alive
from ..leads import Leads
from ..rundir import publish_migrations, read_workers
from ..term import write_term
from .errors import MigrationStorageError
from .journal import Journal
from .machine import State
from .missed import find_missed, forget_missed
from .record import MigrationView, views_of
from .replicas import TERM, Replica, Replicas
from .store import Store

_POLL_SECONDS = 0.25
_TEND_SECONDS = 1.0
MISSED = "missed:0:0"  # stands for writers whose writes passed unmarked
SETTLES = 10.0  # seconds after which the last requests of a process that has ended have arrived, or never will
_STEPS = 100  # the migrated share is told in hundredths
_SHARE_SECONDS = 3.0  # and this seldom: a worker decides everything anew

log = logging.getLogger("crossfade.migration.board")


@dataclass(slots=True)
class Board:
    """The views in a run directory; `serving` gives the process ids of the workers that run at this moment.

    `leads` leads the requests of what is migrated through Python; in the journal the board closes what ended processes
    have left open, and marks everything once it works again after writes had to pass unmarked.
    """

    run_dir: Path
    store: Store
    serving: Callable[[], Sequence[int]]
    leads: Leads
    journal: Journal
    config: Callable[[], Config]
    replicas: Replicas | None = None  # None: nobody shares the store
    _others: Sequence[Replica] = ()
    _until: float = float("inf")  # this replica's workers may act until then
    _seen: dict[str, int] = field(default_factory=dict)  # the version that all of this replica acts on
    _published: dict[str, MigrationView] = field(default_factory=dict)
    _published_at: float = float("-inf")
    _looked: dict[str, int] = field(default_factory=dict)
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _seen_pids: set[int] = field(default_factory=set)
    _last_end: float = float("-inf")  # when a worker was last seen to have ended

    async def run(self) -> None:
        """Publish what changes, until cancelled; a store that cannot be read leaves the last views standing."""
        async with asyncio.TaskGroup() as group:
            group.create_task(_again(self.look, _POLL_SECONDS))
            group.create_task(_again(self.tend, _TEND_SECONDS))
            if self.replicas is not None:
                group.create_task(_again(self.renew, _TEND_SECONDS))

    async def look(self) -> None:
        """Read the store, and publish if that says anything new. Raises MigrationStorageError.

        One at a time: records read earlier must not be published later, when workers have acknowledged newer ones.
        """
        async with self._looking:
            await self._look()

    async def _look(self) -> None:
        records = await self.store.read_all()
        views = {view.id: view for view in views_of(records)}
        if self._says_more(views):
            publish_migrations(self.run_dir, list(views.values()))
            self._published, self._published_at = views, time.monotonic()
        await self.leads.lead(self._names_of(views.values()))
        self._looked = {record.id: record.version for record in records}

    def _says_more(self, views: Mapping[str, MigrationView]) -> bool:
        """Whether workers have to be told; of the share that is migrated they are told now and then."""
        for told in (_told, _told_roughly):
            if _all(told, views) == _all(told, self._published):
                return False
            if time.monotonic() - self._published_at > _SHARE_SECONDS:
                return True
        return True

    async def have_seen(self, migration: str, version: int) -> bool:
        """Whether every running worker acts on this version of the record, or on what says the same or more: those of
        the other replicas too."""
        if not await self._act(migration, version):
            return False
        if self.replicas is None:
            return True
        await self.renew()
        return all(other.seen.get(migration, -1) >= version for other in self._others)

    async def renew(self) -> None:
        """Tell the other replicas what all of this one acts on, and its workers for how long they may.

        Raises MigrationStorageError.
        """
        assert self.replicas is not None  # only then anything calls this
        for migration, version in list(self._looked.items()):
            if await self._act(migration, version):
                self._seen[migration] = version
        asked = time.monotonic()
        out_of_touch = asked > self._until
        self._others = await self.replicas.renew(self._seen)
        if out_of_touch:  # the others may not have waited: workers go on once they act on what is true now
            await self.look()
            for migration, version in list(self._looked.items()):
                if not await self._act(migration, version):
                    return
        self._until = asked + TERM
        write_term(self.run_dir, self._until)

    async def _act(self, migration: str, version: int) -> bool:
        """Whether every worker of this replica acts on a version."""
        if self._looked.get(migration, -1) < version:
            await self.look()
        stated: dict[int, Any] = await asyncio.to_thread(read_workers, self.run_dir)
        seen = self._looked.get(migration, -1) >= version and all(
            pid in stated and self._acts(stated[pid], migration) for pid in self.serving()
        )
        return seen and await self._nothing_escapes(migration, stated)

    def _acts(self, stated: dict[str, Any], migration: str) -> bool:
        acting = stated.get("migrations", {}).get(migration)
        told = self._published.get(migration)
        return acting is None if told is None else acting is not None and acting >= told.version

    async def _nothing_escapes(self, migration: str, stated: dict[int, Any]) -> bool:
        """Whether no write is under way that nobody captures: what began before its collection was led, or was known.

        Asked when a capture begins; later nothing can be.
        """
        told = self._published.get(migration)
        if told is None or told.state is not State.CAPTURING:
            return True
        for pid in self.serving():
            if stated.get(pid, {}).get("strange", {}).get(migration, -1) < told.version:
                return False
        return time.monotonic() - self._last_end > SETTLES and await self.leads.have_drained()

    async def tend(self) -> None:
        """Keep the journal in order. Raises MigrationStorageError."""
        running = set(self.serving())
        if self._seen_pids - running:
            self._last_end = time.monotonic()
        self._seen_pids = running
        for writer in await self.journal.open_writers():
            if self._has_ended(writer):
                count = await self.journal.close_dead(writer, settles_in=SETTLES)
                log.warning(
                    "%s has ended with %d writes under way: they count as ended in %g s", writer, count, SETTLES
                )
        for migration in find_missed(self.config(), self.run_dir):
            if migration in self._published and self._published[migration].captures:
                log.warning("%s: writes have passed unmarked; everything is walked again", migration)
                mark = await self.journal.mark_all(migration, MISSED)
                # What passes unmarked from here on leaves a note of its own; what has passed may still be under way.
                forget_missed(self.config(), self.run_dir, migration)
                await self.journal.close(mark, settles_in=SETTLES)
            else:
                forget_missed(self.config(), self.run_dir, migration)

    def _has_ended(self, writer: str) -> bool:
        """Whether nobody writes under this name any more; a journal in a file has no writers on other machines."""
        alive = is_alive(writer)
        if alive is not None:
            return not alive
        if self.replicas is None:
            return self.journal.url.startswith("sqlite")
        return writer.rsplit(":", 2)[0] not in {other.name.rsplit(":", 2)[0] for other in self._others}

    def _names_of(self, views: Iterable[MigrationView]) -> dict[str, str]:
        """The names whose requests are led through Python, with the collection that each stands for.

        Among several replicas what may be migrated is led as well: one that does not learn of it has to refuse writes.
        """
        names = {name: view.collection for view in views for name in (view.collection, *view.aliases)}
        if self.replicas is not None:
            names |= {name: name for name, one in self.config().collections.items() if one.migrate is not None}
        return names


async def _again(work: Callable[[], Awaitable[None]], seconds: float) -> None:
    while True:
        try:
            await work()
        except MigrationStorageError as error:
            log.error("%s", error)
            await asyncio.sleep(1.0)
        except Exception:  # whatever it is: without the board workers learn of nothing more
            log.exception("the board stumbled, and goes on")
            await asyncio.sleep(1.0)
        await asyncio.sleep(seconds)


def _all(told: Callable[[MigrationView], MigrationView], views: Mapping[str, MigrationView]) -> object:
    return {key: told(view) for key, view in views.items()}


def _told(view: MigrationView) -> MigrationView:
    """What is worth publishing for: all but the version, and the share in steps, where only a whole one is all."""
    return view.model_copy(update={"version": 0, "migrated": int(view.migrated * _STEPS) / _STEPS})


def _told_roughly(view: MigrationView) -> MigrationView:
    """The same with the share as none, some or all, which reads depend on."""
    steps = int(view.migrated * _STEPS)
    return view.model_copy(update={"version": 0, "migrated": 0.0 if steps == 0 else 1.0 if steps == _STEPS else 0.5})
