"""What the journal keeps, as values: without the database's library, which a worker needs only once it captures."""

from __future__ import annotations

from dataclasses import dataclass

from crossfade.backends.dialect import Float32
from crossfade.backends.index import PointId


@dataclass(frozen=True, slots=True, eq=False)
class Native:
    """A new-model vector (new dim,) that a client sent, and what was stored in the old index for it (old dim,).

    The journal adds the number of its write's mark, and whether that write had ended.
    """

    stored: Float32
    vector: Float32
    seq: int = 0
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """One announced write."""

    migration: str
    seq: int


@dataclass(frozen=True, slots=True)
class Dirty:
    """A touched point (None: every point), its newest mark, the marks whose writes have ended, and whether all have."""

    point: PointId | None
    seq: int
    ended: tuple[int, ...]
    finished: bool
