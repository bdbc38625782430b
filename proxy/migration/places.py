"""Where journal and state of the migrations are kept: in databases that are given, or in SQLite files in `state`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ..config import Config

FOLDER: Final = "migrations"


def journal_url(config: Config) -> str:
    """The database of dirty keys, which every worker writes."""
    given = config.migrations.journal
    return given.get_secret_value() if given is not None else f"sqlite:///{_folder(config) / 'journal.sqlite'}"


def store_url(config: Config) -> str:
    """The database of the migrations themselves, which the controller and the verbs write."""
    given = config.migrations.store
    return given.get_secret_value() if given is not None else f"sqlite:///{_folder(config) / 'store.sqlite'}"


def grown_path(folder: Path, migration: str) -> Path:
    """The adapter that a migration has fitted again, in the folder of its samples."""
    return folder / f"adapter-{migration}"


def _folder(config: Config) -> Path:
    return config.state / FOLDER
