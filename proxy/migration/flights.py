"""Writes under way in one worker, by the version of the migration that each of them began with.

A write that began before a worker learned of a change still follows the old rules, so the worker has seen a version
only when every write that began earlier has ended. A write to a collection that no migration was known for counts as
well: its name may turn out to be an alias, or its migration may begin meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Lock

from .record import MigrationView


class Flights:
    """Counts of one process; its event loops and threads share it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._under_way: Counter[tuple[str, int]] = Counter()
        self._strange: dict[object, tuple[int, Mapping[str, int]]] = {}

    @contextmanager
    def write(self, view: MigrationView) -> Iterator[None]:
        """A write to the view's collection, from before its rules are looked at until it has ended."""
        key = (view.id, view.version)
        with self._lock:
            self._under_way[key] += 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way[key] -= 1
                if not self._under_way[key]:
                    del self._under_way[key]

    @contextmanager
    def strange(self, epoch: int, versions: Mapping[str, int]) -> Iterator[None]:
        """A write to a collection that none of the migrations known is about, in this epoch (leading.py)."""
        token = object()
        with self._lock:
            self._strange[token] = (epoch, versions)
        try:
            yield
        finally:
            with self._lock:
                del self._strange[token]

    def oldest(self, versions: Mapping[str, int]) -> dict[str, int]:
        """The oldest version that anything here acts on, by migration: as known now, or older by a write under way."""
        found = dict(versions)
        with self._lock:
            for migration, version in self._under_way:
                found[migration] = min(version, found.get(migration, version))
        return found

    def oldest_strange(self, epoch: int, versions: Mapping[str, int]) -> tuple[int, dict[str, int]]:
        """The oldest epoch and versions that strange writes under way began with; -1: a migration was not known yet."""
        found = dict(versions)
        with self._lock:
            for began, known in self._strange.values():
                epoch = min(epoch, began)
                for migration, version in found.items():
                    found[migration] = min(version, known.get(migration, -1))
        return epoch, found
