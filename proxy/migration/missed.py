"""Writes that passed although they could not be journalled: remembered by a file, until everything is walked again.

A file, since it has to outlive the worker, and since what cannot be written is a database. Where the state's own folder
cannot be written either, the run directory holds it: then it is known as long as `serve` runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..config import Config

_PREFIX = "missed-"


def note_missed(config: Config, run_dir: Path, migration: str) -> None:
    """Remember that a write of a migration is about to pass unmarked. Raises OSError when not even that is possible."""
    name = f"{_PREFIX}{migration}"
    folder = _folder(config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    except OSError:
        (run_dir / name).touch()


def find_missed(config: Config, run_dir: Path) -> Sequence[str]:
    """Migrations with writes that passed unmarked."""
    found = [*_folder(config).glob(f"{_PREFIX}*"), *run_dir.glob(f"{_PREFIX}*")]
    return sorted({path.name.removeprefix(_PREFIX) for path in found})


def forget_missed(config: Config, run_dir: Path, migration: str) -> None:
    """Take a note away, before everything is marked: a write that passes from then on leaves a new one."""
    for folder in (_folder(config), run_dir):
        with suppress(NotADirectoryError):
            (folder / f"{_PREFIX}{migration}").unlink(missing_ok=True)


def _folder(config: Config) -> Path:
    return config.state / "migrations"
