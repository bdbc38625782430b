"""The journal of written keys as a worker uses it: opened when first needed, under a name that no other writer has."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .config import Config
from .migration.errors import MigrationStorageError
from .migration.places import journal_url

if TYPE_CHECKING:
    from .migration.journal import Journal

_REST_SECONDS: Final = 1.0  # between two attempts to open a database that cannot be used


class Journals:
    """One process's journal; its event loops share it."""

    def __init__(self) -> None:
        self.writer = name_writer(os.getpid())
        self._lock = threading.Lock()
        self._opened: tuple[str, Journal] | None = None
        self._failed: tuple[float, MigrationStorageError] | None = None

    @property
    def opened(self) -> Journal | None:
        """The journal, once it is open."""
        return None if self._opened is None else self._opened[1]

    def ready(self, config: Config) -> Journal | None:
        """The journal of a configuration, if it is open."""
        opened = self._opened
        return opened[1] if opened is not None and opened[0] == journal_url(config) else None

    def prepare(self, config: Config) -> None:
        """Import what a journal needs, a third of a second, where a write may need one: none is to wait for it."""
        if any(collection.migrate is not None for collection in config.collections.values()):
            import_module(".migration.journal", __package__)

    async def get(self, config: Config) -> Journal:
        """The journal of a configuration. Raises MigrationStorageError."""
        journal = self.ready(config)
        return journal if journal is not None else await asyncio.to_thread(self._open, journal_url(config))

    def _open(self, url: str) -> Journal:
        from .migration.journal import Journal  # brings the database's library; see prepare

        with self._lock:
            if self._opened is not None and self._opened[0] == url:
                return self._opened[1]
            if self._failed is not None and time.monotonic() - self._failed[0] < _REST_SECONDS:
                raise self._failed[1]
            try:
                journal = Journal(url)
            except MigrationStorageError as error:
                self._failed = (time.monotonic(), error)
                raise
            self._opened, self._failed = (url, journal), None
            return journal


def name_writer(pid: int) -> str:
    """A process of this machine by a name that is never used again. Raises OSError when it does not run."""
    return f"{socket.gethostname()}:{pid}:{_started(pid)}"


def is_alive(writer: str) -> bool | None:
    """Whether a writer's process runs; None for one of another machine, of which nothing is known here."""
    host, pid, _ = writer.rsplit(":", 2)
    if host != socket.gethostname():
        return None
    try:
        return name_writer(int(pid)) == writer
    except (OSError, ValueError):
        return False


def _started(pid: int) -> str:
    """When a process began, in clock ticks since the machine did; with the boot it is as good as a serial number."""
    stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    return stat.rpartition(")")[2].split()[19]
