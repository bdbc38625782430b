"""Where real queries live: the mean and covariance of the query vectors that pass, by collection, field and model.

An event loop hands over copies of a few rows a request (`see`), and once a second they are added up in a thread
(`settle`). No query is kept, and none is written: only their number, mean and scatter, in the state folder, a file
for each event loop that was ever at work at the same time (`queries-N.safetensors`, held by a lock on
`queries-N.lock`, which ends with its process). A worker goes on with the file it gets hold of, so restarts and other
processes beside it lose and double nothing; readers merge all files.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from random import random
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import orjson
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from crossfade.adapters.base import AdapterError, Float32, StoreError
from crossfade.adapters.fingerprint import mismatched
from crossfade.adapters.observe import QueryStatistics

from .routing import Space
from .telemetry import write_atomically

ROWS = 16  # of one request at most: a batch of thousands is one client's, not traffic
_WAITING = 256  # requests between two folds; of more, so many by chance
_MOST_KEYS = 32  # field names come from clients
_MOST_SPREAD = 1_024  # dimensions: a scatter of more takes above 8 MiB, and adding to it three times that
_WEIGHT = 100_000  # what was seen long ago weighs at most this many queries, so that new traffic can move the mean
_BYTES_A_SECOND = 1_000_000  # written to the state folder, on average
_LEAST_SECONDS = 2.0
_MOST_FILES = 4_096

log = logging.getLogger("crossfade.observing")


class Key(NamedTuple):
    """Whose queries they are: a collection's vector field, asked by one model."""

    collection: str
    field: str
    model: str


class Sighting(NamedTuple):
    """Query vectors (n, dim) of one request."""

    space: Space
    model: str
    rows: Float32


class Observer:
    """What one event loop has seen."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: list[Sighting] = []
        self._passed = 0
        self._statistics: dict[Key, QueryStatistics] = {}
        self._place: Path | None = None
        self._lock_file = -1
        self._unwritten = self._refused = False
        self._due = 0.0
        self._settling = Lock()

    def see(self, space: Space, model: str, rows: Float32) -> None:
        """Remember a request's query vectors (n, dim), or leave them out while there are many; costs a small copy."""
        self._passed += 1
        if len(self._waiting) < _WAITING:
            self._waiting.append(Sighting(space, model, rows[:ROWS].copy()))
        elif (place := int(random() * self._passed)) < _WAITING:  # Vitter's algorithm R: each is as likely to stay
            self._waiting[place] = Sighting(space, model, rows[:ROWS].copy())

    def take(self) -> list[Sighting]:
        """What was seen since the last call; for the event loop that sees."""
        taken, self._waiting, self._passed = self._waiting, [], 0
        return taken

    def settle(self, sightings: list[Sighting], *, at_once: bool = False) -> None:
        """Add sightings to the statistics, and write these now and then, or at once; for any thread."""
        with self._settling:
            if self._refused or not (sightings or self._unwritten):
                return
            try:
                place = self._place or self._claim()
                for alike in _together(sightings):
                    self._add(alike)
                if self._unwritten and (at_once or time.monotonic() >= self._due):
                    self._write(place)
            except OSError as error:
                self._refused = self._place is None  # no folder to write into: that is said once
                log.warning("queries are not observed in %s: %s", self._folder, error)

    def _add(self, sighting: Sighting) -> None:
        key = Key(sighting.space.collection, sighting.space.field, sighting.model)
        rows, dim = _own_rows(sighting), sighting.rows.shape[1]
        known = self._statistics.get(key)
        if known is None and len(self._statistics) >= _MOST_KEYS:
            return
        if known is None or known.dim != dim:  # the model's name stands for another model now
            known = QueryStatistics.empty(dim, spread=dim <= _MOST_SPREAD)
        self._statistics[key] = known.decayed(_WEIGHT).add(rows)
        self._unwritten = True

    def _claim(self) -> Path:
        """Take the first file that nobody holds, and go on with what it says. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for number in range(_MOST_FILES):
            lock = os.open(self._folder / f"queries-{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                continue
            self._lock_file, self._place = lock, self._folder / f"queries-{number}.safetensors"
            break
        else:
            raise OSError(f"all of its {_MOST_FILES:,} files are held")
        try:
            self._statistics = dict(_read(self._place))
        except StoreError as error:
            log.warning("%s; counting starts anew there", error)
        return self._place

    def _write(self, place: Path) -> None:
        dumped = dump_statistics(self._statistics)
        write_atomically(place, dumped)
        self._unwritten = False
        self._due = time.monotonic() + max(_LEAST_SECONDS, len(dumped) / _BYTES_A_SECOND)

    def close(self) -> None:
        """Write what is not yet written, and let go of the file."""
        self.settle(self.take(), at_once=True)
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file, self._place, self._refused = -1, None, True


def _together(sightings: list[Sighting]) -> Iterator[Sighting]:
    """Sightings of one space, model and dimension as one: adding costs a product of dim x dim, however few the rows."""
    alike: dict[tuple[int, str, int], list[Sighting]] = {}
    for one in sightings:
        alike.setdefault((id(one.space), one.model, one.rows.shape[1]), []).append(one)
    for found in alike.values():
        yield found[0]._replace(rows=np.concatenate([one.rows for one in found]))


def _own_rows(sighting: Sighting) -> Float32:
    """The rows that look like their model's, where its fingerprint is known: misdeclared ones would move the mean."""
    known = sighting.space.fingerprints.get(sighting.rows.shape[1], {})
    if sighting.model not in known:
        return sighting.rows
    return sighting.rows[~mismatched(sighting.rows, sighting.model, known)]


def dump_statistics(statistics: dict[Key, QueryStatistics]) -> bytes:
    """Statistics as a safetensors file."""
    tensors = {
        f"{at}.{name}": array for at, one in enumerate(statistics.values()) for name, array in one.arrays().items()
    }
    return bytes(save(tensors, {"keys": orjson.dumps([tuple(key) for key in statistics]).decode()}))


def _read(path: Path) -> Iterator[tuple[Key, QueryStatistics]]:
    """What one file holds; nothing where there is none. Raises StoreError."""
    for key, at, tensors in _open(path):
        names = [name for name in tensors.keys() if name.startswith(f"{at}.")]  # noqa: SIM118  # it is no mapping
        arrays = {name.partition(".")[2]: tensors.get_tensor(name) for name in names}
        yield key, QueryStatistics.restore(arrays)


def _open(path: Path) -> Iterator[tuple[Key, int, Any]]:
    try:
        opened: Any = safe_open(path, "numpy")  # its methods carry no types
        with opened as tensors:
            for at, key in enumerate(orjson.loads((tensors.metadata() or {})["keys"])):
                yield Key(*key), at, tensors
    except FileNotFoundError:
        return
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} holds no observed queries ({error}); remove it") from error


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("queries-*.safetensors"))


def read_observed(folder: Path, key: Key, dim: int) -> QueryStatistics | None:
    """What all workers saw of a key's queries, or None; files of another dimension do not count. Raises StoreError."""
    found = [one for path in _files(folder) for other, one in _read(path) if other == key and one.dim == dim]
    merged = QueryStatistics.empty(dim, spread=all(one.has_spread for one in found))
    for one in found:
        merged = merged.merge(one)
    return merged if merged.count else None


def count_observed(folder: Path) -> dict[Key, int]:
    """How many queries the statistics of each key weigh, without reading them; unreadable files are left out."""
    counts: dict[Key, int] = {}
    for path in _files(folder):
        try:
            for key, at, tensors in _open(path):
                counts[key] = counts.get(key, 0) + int(tensors.get_tensor(f"{at}.count")[0])
        except AdapterError as error:
            log.warning("%s", error)
    return counts
