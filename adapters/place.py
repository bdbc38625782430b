"""Put a finished directory in the place of another, atomically where the system can."""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def rename_over(fresh: Path, place: Path) -> None:
    """Make `fresh` appear as `place`; what stood there is left under the name `fresh` for the caller to remove.

    Linux exchanges the two names in one step (renameat2). Elsewhere, and on file systems without it, two renames
    leave a moment in which `place` does not exist. The parent directory is synced, so that the change survives a
    power cut.
    """
    if not place.exists():
        os.rename(fresh, place)
    elif not _exchange(fresh, place):
        aside = fresh.with_name(fresh.name + ".replaced")
        os.rename(place, aside)
        os.rename(fresh, place)
        os.rename(aside, fresh)
    _sync(place.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two names in one step; False where the C library, kernel or file system has no such call."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(second))


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
