"""Writes under way in one worker, by the version of the migration that each of them began with.

A write that began before a worker learned of a change still follows the old rules, so the worker has seen a version
only when every write that began earlier has ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock

from .record import MigrationView

_ANY = ""  # stands for the writes that no migration is known for


class Flights:
    """Counts of one process; its event loops and threads share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._under_way: Counter[tuple[str, int]] = Counter()

    @contextmanager
    def write(self, view: MigrationView) -> Iterator[None]:
        """A write to the view's collection, from before its rules are looked at until it has ended."""
        with self._count((view.id, view.version)):
            yield

    @contextmanager
    def unknown(self, epoch: int) -> Iterator[None]:
        """A write to a collection that no migration was known for in this epoch (leading.py)."""
        with self._count((_ANY, epoch)):
            yield

    @contextmanager
    def _count(self, key: tuple[str, int]) -> Iterator[None]:
        with self._lock:
            self._under_way[key] += 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way[key] -= 1
                if not self._under_way[key]:
                    del self._under_way[key]

    def oldest_epoch(self, epoch: int) -> int:
        """The oldest epoch that anything here acts in: the one known now, or an older one by a write under way."""
        with self._lock:
            return min([epoch, *(number for migration, number in self._under_way if migration == _ANY)])

    def oldest(self, versions: Mapping[str, int]) -> dict[str, int]:
        """The oldest version that anything here acts on, by migration: as known now, or older by a write under way."""
        found = dict(versions)
        with self._lock:
            for migration, version in self._under_way:
                if migration == _ANY:
                    continue
                found[migration] = min(version, found.get(migration, version))
        return found
