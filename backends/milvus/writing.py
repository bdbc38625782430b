"""Milvus's WriteCodec: what each of its changes means to a migration, and which points its writes name.

Points are named by their key, which only the collection's schema tells. Where Milvus gives out the keys (autoID) it
tells them in its answer, of an upsert too: it stores the point under a new one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from ..dialect import NO_CONTEXT, Edit, Message, Operation, RequestContext, Transport
from ..index import PointId
from ..pieces import join_pieces
from ..writing import ConditionSlot, Effect, Hold, Listed, Question, Write
from . import rest_touches, touches
from .message import MilvusMessage
from .others import find_names
from .owners import find_owners
from .rest_slots import edit_rest
from .schema import SERVICE
from .slots import edit_grpc

_POINTS: Final = frozenset({"Insert", "Upsert", "Delete"})
_FINISH: Final = "complete or cancel the migration first"
_LACKS: Final = f"the copy would lack it; {_FINISH}"
_EFFECTS: Final[dict[str, tuple[Effect, str]]] = {
    "CreateIndex": ("both", "an index over a field"),
    "AlterIndex": ("both", "an index over a field"),
    "DropIndex": ("both", "an index over a field"),
    "Import": ("anything", "files are imported past the proxy"),
    "TruncateCollection": ("anything", "all points are deleted"),
    "BatchUpdateManifest": ("anything", "stored files are exchanged"),
    "RefreshExternalCollection": ("anything", "stored files are exchanged"),
    "RestoreSnapshot": ("anything", "a snapshot is restored"),
    "RestoreExternalSnapshot": ("anything", "a snapshot is restored"),
    "DropCollection": ("refused", f"the copy would lose its source; {_FINISH}"),
    "CreateCollection": ("refused", f"it is there already, and being migrated; {_FINISH}"),
    "RenameCollection": ("refused", f"its writes have to be known under every name; {_FINISH}"),
    "ReleaseCollection": ("refused", f"its points could not be read; {_FINISH}"),
    "ReleasePartitions": ("refused", f"its points could not be read; {_FINISH}"),
    "AlterCollection": ("refused", f"its settings would change in one of two collections; {_FINISH}"),
    "AlterCollectionField": ("refused", f"its settings would change in one of two collections; {_FINISH}"),
    "AlterCollectionSchema": ("refused", f"its schema would change in one of two collections; {_FINISH}"),
    "AddCollectionField": ("refused", _LACKS),
    "AddCollectionStructField": ("refused", _LACKS),
    "AddCollectionFunction": ("refused", _LACKS),
    "AlterCollectionFunction": ("refused", f"its schema would change in one of two collections; {_FINISH}"),
    "DropCollectionFunction": ("refused", f"the copy would keep it; {_FINISH}"),
    "CreatePartition": ("refused", f"Milvus does not tell which point is in which partition; {_FINISH}"),
    "DropPartition": ("refused", f"the copy would keep its points; {_FINISH}"),
    "CreateNamespace": ("refused", _LACKS),
    "DropNamespace": ("refused", f"the copy would keep its points; {_FINISH}"),
    "CreateAlias": ("refused", f"its writes have to be known under every name; {_FINISH}"),
    "DropAlias": ("refused", f"its writes have to be known under every name; {_FINISH}"),
    "AlterAlias": ("refused", f"its writes have to be known under every name; {_FINISH}"),
    "CreateRowPolicy": ("refused", _LACKS),
    "DropRowPolicy": ("refused", f"the copy would keep it; {_FINISH}"),
}


class MilvusWriting:
    """See writing.WriteCodec."""

    around: Sequence[tuple[Transport, str]] = (("grpc", f"{SERVICE}/"),)
    told_by_status: Collection[str] = ()  # Milvus tells failures inside of its answers

    def find_names(
        self, operation: Operation, path: str, body: bytes, context: RequestContext = NO_CONTEXT
    ) -> Sequence[str]:
        """The collections, and aliases of them, that a request names; its database may stand in the metadata."""
        return find_names(operation, body, context)

    def read_write(
        self, operation: Operation, path: str, body: bytes, context: RequestContext = NO_CONTEXT
    ) -> Write | None:
        """What a request changes; None for what changes nothing that a migration has to know."""
        if operation.name in _POINTS:
            read = rest_touches.read_points_write if operation.transport == "rest" else touches.read_points_write
            return read(operation.name, body, context)
        if operation.name not in _EFFECTS:
            return None
        effect, reason = _EFFECTS[operation.name]
        return Write(effect, find_names(operation, body, context), waits=effect != "anything", reason=reason)

    def edit(self, operation: Operation, body: bytes, edits: Sequence[Edit], holds: Sequence[Hold]) -> bytes:
        """The body with other vectors, or with its expression held to some points: no write has both."""
        if operation.transport == "rest":
            return join_pieces(edit_rest(body, edits))  # no condition is found in JSON
        return join_pieces(edit_grpc(body, edits, [touches.hold(body, *one) for one in holds]))

    def find_owners(self, operation: Operation, request: Message) -> Sequence[Sequence[PointId]]:
        """The points of each slot of a write, row by row."""
        assert isinstance(request, MilvusMessage)  # the dialect reads every request itself
        return find_owners(operation, request)

    def ask_ids(
        self, operation: Operation, path: str, body: bytes, condition: ConditionSlot, after: PointId | None, limit: int
    ) -> Question:
        """A Query for the keys of an expression's points, with strong consistency.

        A query's rows come in no order, so there is no next page: what does not fit into one is asked for whole.
        """
        few = None if after is not None else min(limit, _FEW)
        return Question("POST", f"{SERVICE}/Query", touches.list_points(body, condition, few))

    def read_ids(self, operation: Operation, answer: bytes) -> Listed:
        """The keys in a Query's answer."""
        return touches.read_listed(answer, _FEW)

    def ask_settled(self, operation: Operation, path: str, body: bytes) -> Question | None:
        """Nothing: a query is asked with strong consistency, which sees every earlier write."""
        return None

    def read_created(self, operation: Operation, answer: bytes, write: Write) -> Sequence[PointId]:
        """The keys that Milvus has given out."""
        if operation.transport == "rest":
            return rest_touches.read_mutated(answer, text_ids=write.text_ids)
        return touches.read_mutated(answer)


_FEW: Final = 10_000  # keys asked for at first; Milvus answers with 16,384 rows at most where a limit is given
