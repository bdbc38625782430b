"""The samples of migrations as a worker has them: read from the controller's files, again whenever one is replaced."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from .matching import Sample, build_sample
from .migration.sample import read_sample, sample_path

log = logging.getLogger("crossfade.samples")


class SampleShelf:
    """Read samples by migration, with what tells one version of a file from the next."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[tuple[int, int], Sample | None]] = {}

    def is_stale(self, folder: Path, migrations: Iterable[str]) -> bool:
        """Whether a file has changed since it was read."""
        return any(_stamp(sample_path(folder, one)) != self._kept.get(one, ((0, 0), None))[0] for one in migrations)

    def load(self, folder: Path, migrations: Iterable[str]) -> dict[str, Sample]:
        """The samples of these migrations that have a usable one; those of others are let go of."""
        kept = {}
        for migration in migrations:
            path = sample_path(folder, migration)
            stamp = _stamp(path)
            known = self._kept.get(migration)
            kept[migration] = known if known is not None and known[0] == stamp else (stamp, _read(path))
        self._kept = kept
        return {migration: sample for migration, (_, sample) in kept.items() if sample is not None}


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_ino


def _read(path: Path) -> Sample | None:
    """The sample in a file; one that cannot be read is none, and hits are interleaved by rank."""
    try:
        found = read_sample(path)
    except (OSError, ValueError) as error:
        log.warning("%s; hits of both indexes are interleaved by rank", error)
        return None
    return None if found is None else build_sample(*found)
