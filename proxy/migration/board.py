"""What the workers are told of migrations, and whether all of them act on it: the supervisor's side.

Views are published when they say something new, not with every point that is copied: a worker that takes up a view
decides all its collections again. So the version that workers know may be older than the record's; the board remembers
up to which version of the record the published view is still what that record says.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..rundir import publish_migrations, read_workers
from .errors import MigrationStorageError
from .record import MigrationView, views_of
from .store import Store

_POLL_SECONDS = 0.25
_STEPS = 100  # the migrated share is told in hundredths

log = logging.getLogger("crossfade.migration.board")


@dataclass(slots=True)
class Board:
    """The views in a run directory; `serving` gives the process ids of the workers that run at this moment."""

    run_dir: Path
    store: Store
    serving: Callable[[], Sequence[int]]
    _published: dict[str, MigrationView] = field(default_factory=dict)
    _looked: dict[str, int] = field(default_factory=dict)
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self) -> None:
        """Publish what changes, until cancelled; a store that cannot be read leaves the last views standing."""
        while True:
            try:
                await self.look()
            except MigrationStorageError as error:
                log.error("%s", error)
                await asyncio.sleep(1.0)
            await asyncio.sleep(_POLL_SECONDS)

    async def look(self) -> None:
        """Read the store, and publish if that says anything new. Raises MigrationStorageError.

        One at a time: records read earlier must not be published later, when workers have acknowledged newer ones.
        """
        async with self._looking:
            await self._look()

    async def _look(self) -> None:
        records = await self.store.read_all()
        views = {view.id: view for view in views_of(records)}
        if {key: _told(view) for key, view in views.items()} != {
            key: _told(view) for key, view in self._published.items()
        }:
            publish_migrations(self.run_dir, list(views.values()))
            self._published = views
        self._looked = {record.id: record.version for record in records}

    async def have_seen(self, migration: str, version: int) -> bool:
        """Whether every running worker acts on this version of the record, or on what says the same or more."""
        if self._looked.get(migration, -1) < version:
            await self.look()
        stated = await asyncio.to_thread(read_workers, self.run_dir)
        return self._looked.get(migration, -1) >= version and all(
            pid in stated and self._acts(stated[pid], migration) for pid in self.serving()
        )

    def _acts(self, stated: dict[str, Any], migration: str) -> bool:
        acting = stated.get("migrations", {}).get(migration)
        told = self._published.get(migration)
        return acting is None if told is None else acting is not None and acting >= told.version


def _told(view: MigrationView) -> MigrationView:
    """What is worth publishing for: all but the version, and the share in steps, where only a whole one is all."""
    return view.model_copy(update={"version": 0, "migrated": int(view.migrated * _STEPS) / _STEPS})
