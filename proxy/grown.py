"""Adapters that migrations have fitted again, as a worker has them: read again whenever the controller replaces one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from crossfade.adapters.base import Adapter, AdapterError
from crossfade.adapters.store import CARD, load_adapter

from .migration.places import grown_path
from .migration.record import MigrationView

log = logging.getLogger("crossfade.grown")

Stamp = tuple[int, int]


class GrownShelf:
    """Grown adapters by migration, with what tells one version from the next."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Stamp, Adapter | None]] = {}

    def is_stale(self, folder: Path, migrations: Iterable[str]) -> bool:
        """Whether one has been fitted since they were read."""
        return any(_stamp(folder, one) != self._kept.get(one, ((0, 0), None))[0] for one in migrations)

    def load(self, folder: Path, views: Iterable[MigrationView]) -> Mapping[str, Adapter]:
        """The adapters of these migrations that have one, by migration; those of others are let go of."""
        kept = {}
        for view in views:
            stamp = _stamp(folder, view.id)
            known = self._kept.get(view.id)
            kept[view.id] = known if known is not None and known[0] == stamp else (stamp, _read(folder, view, stamp))
        self._kept = kept
        return {migration: adapter for migration, (_, adapter) in kept.items() if adapter is not None}


def _stamp(folder: Path, migration: str) -> Stamp:
    try:
        stat = (grown_path(folder, migration) / CARD).stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_ino


def _read(folder: Path, view: MigrationView, stamp: Stamp) -> Adapter | None:
    """The adapter, or None: the configured one serves on then."""
    if stamp == (0, 0):
        return None
    place = grown_path(folder, view.id)
    try:
        return load_adapter(place, source_model=view.to_model, target_model=view.from_model)
    except (OSError, AdapterError) as error:
        log.warning("the adapter that was fitted again cannot be read, the configured one serves on: %s", error)
        return None
