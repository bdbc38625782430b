"""Where journal and state of the migrations are kept: SQLite files in the state folder."""

from __future__ import annotations

from pathlib import Path

from ..config import Config


def journal_url(config: Config) -> str:
    """The database of dirty keys, which every worker writes."""
    return f"sqlite:///{_folder(config) / 'journal.sqlite'}"


def store_url(config: Config) -> str:
    """The database of the migrations themselves, which the controller and the verbs write."""
    return f"sqlite:///{_folder(config) / 'store.sqlite'}"


def _folder(config: Config) -> Path:
    return config.state / "migrations"
