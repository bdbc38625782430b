"""Whether the controller that holds a lease is still there, where all controllers are on one machine.

A lock on a file beside an SQLite store: the kernel lets go of it when its process ends, however it ends. So a killed
controller is followed within seconds instead of after the rest of its lease. PostgreSQL's controllers are on several
machines, and wait.
"""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import make_url

from .errors import MigrationStorageError


@dataclass(slots=True)
class Presence:
    """One controller's hand on the lock of a store; without a file every attempt succeeds and proves nothing."""

    path: Path | None
    _file: int | None = field(default=None, init=False)

    @property
    def proves(self) -> bool:
        """Whether holding it means that no other controller is there."""
        return self.path is not None

    def take(self) -> bool:
        """Try to get the lock. Raises MigrationStorageError when the file cannot be made."""
        if self.path is None or self._file is not None:
            return True
        try:
            opened = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise MigrationStorageError(place=str(self.path), reason=error.strerror or str(error)) from error
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(opened)
            return False
        self._file = opened
        return True

    def leave(self) -> None:
        """Let go of the lock."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def presence_of(url: str) -> Presence:
    """The lock of the store at this URL."""
    parsed = make_url(url)
    on_disk = parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:")
    return Presence(Path(f"{parsed.database}.lock") if on_disk else None)
