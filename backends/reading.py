"""What a dialect knows of reading a collection from another one: the same request there, and hits of both put together.

While a collection is migrated its points stand in two collections. `ReadCodec` renames the collection a request names,
takes plain searches apart so that each side can be asked for what it knows, and forms the one answer of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from .dialect import (
    NO_CONTEXT,
    Edit,
    Float32,
    Message,
    Operation,
    RequestContext,
    TextSlot,
    Transport,
    VectorSlot,
)
from .index import PointId


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """One plain search of a request: the nearest points to one vector, or to a text that is to become one.

    Several searches may share a slot, each with a `row` of it.
    """

    slot: VectorSlot | TextSlot
    limit: int
    offset: int
    threshold: float | None  # in the space of the client's model
    wants_payload: bool
    wants_vectors: bool
    place: object  # the codec's own address of the search
    row: int = 0


class Hit(NamedTuple):
    """One point that a search found; `raw` is how the answer has it."""

    id: PointId
    score: float
    raw: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Asking:
    """A search as it is to be asked instead: `vector` (dim,), and `limit` hits from the first on, without a threshold.

    With `among` only these points are searched, whatever the filter says, unless it is to `narrow` them further. A
    `bare` search wants neither payload nor vectors.
    """

    vector: Float32
    limit: int
    among: Sequence[PointId] | None = None
    narrow: bool = False
    bare: bool = True


def fill_slot(slot: VectorSlot | TextSlot, vector: Float32) -> Edit:
    """The edit that puts one vector (dim,) into a slot."""
    row = vector.reshape(1, -1)
    if isinstance(slot, VectorSlot):
        return slot, row
    return slot, row


class ReadCodec(Protocol):
    """How a database's requests are led to another collection than the one they name."""

    others: Sequence[Operation]
    """Methods that name a collection and carry no vectors: they go past Python except while a migration needs them."""
    squares: bool
    """Whether the score of a Euclidean distance is its square."""

    def find_other(self, transport: Transport, method: str, path: str) -> Operation | None:
        """The one of `others` that a request line names, or None; a query string is not looked at."""

    def find_collection(
        self, operation: Operation, path: str, body: bytes, context: RequestContext = NO_CONTEXT
    ) -> str | None:
        """The collection that a request of `others` is about, None when there is not exactly one.

        Raises MalformedError.
        """

    def retarget(
        self,
        operation: Operation,
        path: str,
        body: bytes,
        names: Mapping[str, str],
        context: RequestContext = NO_CONTEXT,
    ) -> tuple[str, bytes]:
        """Path and body of any request with collections named otherwise, and everything else as it was.

        Raises MalformedError.
        """

    def find_searches(self, operation: Operation, request: Message) -> Sequence[Search] | None:
        """The searches of a request that consists of nothing but plain ones; None for every other request."""

    def split_searches(self, asked: Sequence[tuple[Search, Asking]]) -> Sequence[Sequence[tuple[Search, Asking]]]:
        """The same searches in the same order, in groups that one message can ask; together where none has `among`."""

    def form_searches(self, operation: Operation, request: Message, asked: Sequence[tuple[Search, Asking]]) -> bytes:
        """The request with its searches asked otherwise; those that are not given are left out."""

    def read_hits(self, operation: Operation, request: Message, body: bytes) -> Sequence[Sequence[Hit]]:
        """The hits of an answer to a request, search by search, in its order. Raises MalformedError."""

    def form_hits(self, operation: Operation, request: Message, body: bytes, found: Sequence[Sequence[Hit]]) -> bytes:
        """The answer `body` to a request with these hits in place of its own, each with the score it is given with.

        Raises MalformedError for hits that one answer cannot hold.
        """

    def refuses(self, operation: Operation, body: bytes) -> bool:
        """Whether an answer says that the request failed, where failures are told in answers."""
