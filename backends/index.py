"""What background work asks of a database: the Protocol that one Index client for each database implements.

Unlike the codecs this is I/O: fitting, evaluating and re-encoding read points and write vectors through it, with the
database's own client library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from .dialect import Float32

PointId = int | str
Distance = Literal["cosine", "dot", "euclid", "manhattan"]


class IndexRefusedError(RuntimeError):
    """The database refused a call or could not be reached; `retryable` when the same call may succeed later."""

    def __init__(self, collection: str, reason: str, *, retryable: bool) -> None:
        super().__init__(f"collection {collection!r}: {reason}")
        self.collection = collection
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """One dense vector field; `name` is "" for Qdrant's default vector."""

    name: str
    dim: int
    distance: Distance
    multi: bool  # a point holds several rows in it


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    """A collection's dense fields, and the names of its sparse ones."""

    name: str
    fields: tuple[FieldInfo, ...]
    sparse: tuple[str, ...]

    def field(self, name: str) -> FieldInfo:
        """The dense field of this name. Raises KeyError naming the fields there are."""
        for one in self.fields:
            if one.name == name:
                return one
        raise KeyError(
            f"collection {self.name!r} has no dense vector field {name!r}; it has {[one.name for one in self.fields]}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class SparseVector:
    """Non-zero values (n,) at their indices (n,)."""

    indices: NDArray[np.uint32]
    values: Float32


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """A stored point: dense vectors (dim,), or (n, dim) in a multi-vector field, by field name."""

    id: PointId
    vectors: Mapping[str, Float32]
    payload: Mapping[str, object] = field(default_factory=dict)
    sparse: Mapping[str, SparseVector] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page:
    """Some ids in the order of the database, and where to go on (None: this was the last page)."""

    ids: Sequence[PointId]
    next: PointId | None


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """The answer to one query row, best first: ids, and scores (n,) as the database gives them."""

    ids: Sequence[PointId]
    scores: Float32


@dataclass(frozen=True, slots=True)
class IndexHealth:
    """Whether a collection can serve: its points (exact), the vectors in its index as the database counts them (None:
    it does not say), what is still being built, and what is broken."""

    points: int
    indexed: int | None
    building: str | None = None
    broken: str | None = None


class Index(Protocol):
    """One database. Every method raises IndexRefusedError when the database refuses or cannot be reached."""

    @property
    def searches_exactly(self) -> bool:
        """Whether `search` can be told to compare every vector, instead of asking the field's index."""

    async def describe(self, collection: str) -> CollectionInfo:
        """The vector fields of a collection."""

    async def exists(self, collection: str) -> bool:
        """Whether there is a collection of this name."""

    async def count(self, collection: str) -> int:
        """How many points there are, exactly."""

    async def list_ids(self, collection: str, start: PointId | None, limit: int) -> Page:
        """Up to `limit` ids from `start` on (None: from the first)."""

    async def sample_ids(self, collection: str, n: int, seed: int) -> Sequence[PointId]:
        """Up to `n` different ids, each point equally likely, the same for the same seed and content."""

    async def fetch(
        self, collection: str, ids: Sequence[PointId], fields: Sequence[str] | None = None, *, payload: bool = True
    ) -> Sequence[Point]:
        """The points of these ids, in this order, without those that do not exist; `fields` None: all vectors."""

    async def fetch_texts(self, collection: str, ids: Sequence[PointId], text: str) -> Sequence[str | None]:
        """For each id its text (see payload_text), None when the point or its text does not exist."""

    async def upsert(self, collection: str, points: Sequence[Point]) -> None:
        """Write whole points, and wait until they can be read."""

    async def delete(self, collection: str, ids: Sequence[PointId]) -> None:
        """Delete points, and wait until they are gone; ids that do not exist are no error."""

    async def create_like(self, source: str, target: str, dims: Mapping[str, int]) -> None:
        """Create an empty collection with the settings and payload indexes of another, but these dims by field."""

    async def drop(self, collection: str) -> None:
        """Destroy a collection; one that does not exist is no error."""

    async def other_names(self, collection: str) -> Sequence[str]:
        """Every other name under which a collection can be written: its aliases, and what it is itself an alias of."""

    async def settle(self, collection: str) -> None:
        """Wait until every write to a collection that was answered before can be read."""

    async def replace_by_alias(self, old: str, collection: str) -> None:
        """Destroy a collection, and make its name an alias of another one; that it is one already is no error."""

    async def search(self, collection: str, name: str, rows: Float32, k: int, *, exact: bool = True) -> Sequence[Hits]:
        """The best `k` points for each row (n, dim) in a vector field, by exact search unless told otherwise."""

    async def health(self, collection: str) -> IndexHealth:
        """Whether the collection's index is built and sound."""

    async def close(self) -> None:
        """Let go of the connection."""
