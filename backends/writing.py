"""What a dialect knows of writes: which points each of them may change, so that a migration can bring them over.

Before a write goes on, the ids of its points are journalled. A write that names its points by a condition is taken
apart: the database lists the points first, and the write is then held to those, so that it can touch no other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from .dialect import NO_CONTEXT, Edit, Message, Operation, RequestContext, Transport
from .index import PointId

Effect = Literal["points", "anything", "both", "refused"]
"""What a change means to a collection that is being migrated.

points    changes points, which `Write.steps` name
anything  may change any point, or moves data past the proxy: a restored snapshot
both      has to happen to the target as well: an index over a payload field
refused   cannot happen while two collections must stay alike: it would rename, reshape or delete one of them
"""


@dataclass(frozen=True, slots=True, eq=False)
class ConditionSlot:
    """A condition by which a write names its points."""

    place: object


Hold = tuple[ConditionSlot, Sequence[PointId]]
"""A condition, and the only points that it may name from then on."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One step of a write, in the order in which the database takes them.

    It names points one by one (`ids`), by a condition, or both. `creates`: the database itself makes the ids of new
    points and tells them in its answer.
    """

    ids: Sequence[PointId] = ()
    condition: ConditionSlot | None = None
    creates: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Write:
    """A request that changes something: what it means, to which collections, and which points it names.

    `waits`: the client wants to read what it has written as soon as it is answered. `reason`: why it is refused, or
    may change anything, for whoever reads it in a message. `unsettled`: its points can only be told with the schemas of
    its collections, which were not known. `text_ids`: as Schema has it, where a schema was needed.
    """

    effect: Effect
    collections: Sequence[str]
    steps: Sequence[Step] = ()
    waits: bool = True
    reason: str = ""
    unsettled: bool = False
    text_ids: bool = False

    @property
    def conditions(self) -> Sequence[ConditionSlot]:
        """The conditions of its steps."""
        return [step.condition for step in self.steps if step.condition is not None]


class Question(NamedTuple):
    """A request of the proxy's own, in the transport and with the credentials of the write it is asked for."""

    method: str
    path: str  # with its query string
    body: bytes  # an unframed gRPC message, or a JSON text


class Listed(NamedTuple):
    """A page of ids, and what to ask the next one with; None: it was the last."""

    ids: Sequence[PointId]
    after: PointId | None


class WriteCodec(Protocol):
    """How a database's writes are read, and held to the points that were listed."""

    around: Sequence[tuple[Transport, str]]
    """Path templates below which a method that nobody knows yet may change a collection."""
    told_by_status: Collection[str]
    """Names of writes of points whose answer's status says all of their end, so that its body need not be read."""

    def find_names(
        self, operation: Operation, path: str, body: bytes, context: RequestContext = NO_CONTEXT
    ) -> Sequence[str]:
        """The collections that a request names, however it does. Raises MalformedError."""

    def read_write(
        self, operation: Operation, path: str, body: bytes, context: RequestContext = NO_CONTEXT
    ) -> Write | None:
        """What a request changes; `body` is one unframed gRPC message or a JSON text.

        None for what changes nothing that a migration has to know. A message that is no write of its kind names no
        points: the database will refuse it. Raises MalformedError.
        """

    def edit(self, operation: Operation, body: bytes, edits: Sequence[Edit], holds: Sequence[Hold]) -> bytes:
        """The body that `read_write` has read, with other vectors and its conditions held; all else is untouched."""

    def find_owners(self, operation: Operation, request: Message) -> Sequence[Sequence[PointId]]:
        """The points of each of `request.slots`, row by row; none for a slot whose rows are not one point's each."""

    def ask_ids(
        self, operation: Operation, path: str, body: bytes, condition: ConditionSlot, after: PointId | None, limit: int
    ) -> Question:
        """How a page of the points of a condition is asked for, in the database's own order."""

    def read_ids(self, operation: Operation, answer: bytes) -> Listed:
        """The ids in the answer to `ask_ids`. Raises MalformedError."""

    def ask_settled(self, operation: Operation, path: str, body: bytes) -> Question | None:
        """A request that changes nothing and is answered once every earlier write to its collection can be read.

        None where the answer to a write says that already.
        """

    def read_created(self, operation: Operation, answer: bytes, write: Write) -> Sequence[PointId]:
        """The ids that the database has made for new points, in the answer to a write. Raises MalformedError."""
