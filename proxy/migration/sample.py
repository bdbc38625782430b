"""Points that are in both indexes, kept in a file for the workers: old and new vectors side by side.

Which points is decided by their ids alone (those with the smallest hashes), so that the sample is random, the same
after every restart, and follows each point's newest vectors. The controller writes the file, workers read it when a
view changes; it is replaced whole, so that a reader never sees half of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Final

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from crossfade.backends.dialect import Float32
from crossfade.backends.index import Distance, PointId

from ..config import Config
from ..telemetry import write_atomically
from .keys import write_key
from .places import FOLDER

MOST: Final = 2_000
_FEWEST: Final = 20  # below, nobody can use it
_ALL: Final = 2**64
_SLACK: Final = 1.1  # so many times too much before any are let go: sorting every batch would cost more than it saves
_GROWN: Final = 1.25  # so much larger, or so many points changed, and it is written again


def sample_folder(config: Config) -> Path:
    """Where the samples of all migrations are."""
    return config.state / FOLDER


def sample_path(folder: Path, migration: str) -> Path:
    """The file of one migration."""
    return folder / f"sample-{migration}.safetensors"


def read_sample(path: Path) -> tuple[Float32, Float32, Distance] | None:
    """New vectors (n, new_dim), old ones (n, old_dim) of the same points, and their distance; None without a file.

    Raises ValueError for a file that is not a sample.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            distance: Distance = file.metadata()["distance"]
            return file.get_tensor("new"), file.get_tensor("old"), distance
    except (SafetensorError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no sample of a migration: {error}") from error


class Sampler:
    """The controller's side: takes note of points that were brought over, and writes the file as it grows."""

    def __init__(self, path: Path, distance: Distance, most: int = MOST) -> None:
        self._path, self._distance, self._most = path, distance, most
        self._kept: dict[int, tuple[Float32, Float32]] = {}  # new and old by the hash of the id
        self._last = _ALL  # the greatest hash that may be kept
        self._changed, self._written = 0, 0
        self._load()

    def __len__(self) -> int:
        """How many points are kept."""
        return min(len(self._kept), self._most)

    def _load(self) -> None:
        """Go on with what was there before a restart; a file that is none is made anew."""
        if not self._path.exists():
            return
        try:
            with safe_open(self._path, framework="numpy") as file:
                keys, new, old = (file.get_tensor(name) for name in ("keys", "new", "old"))
        except SafetensorError:
            return
        self._kept = {int(key): (one, other) for key, one, other in zip(keys, new, old, strict=True)}
        self._written = len(self._kept)

    def note(self, pairs: Mapping[PointId, tuple[Float32, Float32]], gone: Sequence[PointId]) -> None:
        """Take note of points with their new and old vectors (dim,), and of points that are in neither index now."""
        for point in gone:
            self._changed += self._kept.pop(_hash(point), None) is not None
        for point, pair in pairs.items():
            key = _hash(point)
            if key <= self._last:
                self._kept[key] = pair
                self._changed += 1
        if len(self._kept) > _SLACK * self._most:
            self._trim()

    def _trim(self) -> None:
        """Let go of what is too much, and take no more of what would be."""
        keys = sorted(self._kept)
        for key in keys[self._most :]:
            del self._kept[key]
        self._last = keys[self._most - 1] if len(keys) >= self._most else _ALL

    @property
    def due(self) -> bool:
        """Whether so much has changed that the file should be written again."""
        return len(self) >= _FEWEST and self._changed >= max(1.0, self._written * (_GROWN - 1))

    def write(self) -> None:
        """Replace the file. Raises OSError."""
        self._trim()
        keys = np.array(sorted(self._kept), np.uint64)
        pairs = [self._kept[int(key)] for key in keys]
        new, old = np.stack([new for new, _ in pairs]), np.stack([old for _, old in pairs])
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, save({"keys": keys, "new": new, "old": old}, {"distance": self._distance}))
        self._changed, self._written = 0, len(pairs)


def _hash(point: PointId) -> int:
    return int.from_bytes(blake2b(write_key(point).encode(), digest_size=8).digest(), "big")
