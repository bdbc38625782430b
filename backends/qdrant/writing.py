"""Qdrant's WriteCodec: what each of its changes means to a migration, and which points its writes name."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final
from urllib.parse import parse_qs

import orjson

from ..dialect import NO_CONTEXT, Edit, MalformedError, Message, Operation, RequestContext, Transport
from ..index import PointId
from ..pieces import join_pieces
from ..wire import compile_shapes, read_text, root_span, scan
from ..writing import ConditionSlot, Effect, Hold, Listed, Question, Write
from . import conditions, rest_conditions, rest_touches, touches
from .conditions import hold_filter
from .message import QdrantMessage
from .methods import collection_of
from .owners import find_owners
from .rest_conditions import hold_json_filter
from .rest_slots import edit_rest
from .wire_slots import edit_wire

_POINTS: Final = frozenset(
    {
        *("Upsert", "UpdateVectors", "UpdateBatch", "Delete", "DeleteVectors"),
        *("SetPayload", "OverwritePayload", "DeletePayload", "ClearPayload"),
    }
)
_FINISH: Final = "complete or cancel the migration first"
_EFFECTS: Final[dict[str, tuple[Effect, str]]] = {
    "CreateFieldIndex": ("both", "an index over a payload field"),
    "DeleteFieldIndex": ("both", "an index over a payload field"),
    "RecoverSnapshot": ("anything", "a snapshot is restored"),
    "UploadSnapshot": ("anything", "a snapshot is restored"),
    "UpdateCollectionClusterSetup": ("anything", "shards are moved"),
    "UpdateCollection": ("refused", f"its settings would change in one of two collections; {_FINISH}"),
    "DeleteCollection": ("refused", f"the copy would lose its source; {_FINISH}"),
    "CreateVectorName": ("refused", f"the copy would lack the vector; {_FINISH}"),
    "DeleteVectorName": ("refused", f"the copy would keep the vector; {_FINISH}"),
    "CreateShardKey": ("refused", f"the copy would lack the shard key; {_FINISH}"),
    "DeleteShardKey": ("refused", f"the copy would keep its points; {_FINISH}"),
    "UpdateAliases": ("refused", f"its writes have to be known under every name; {_FINISH}"),
    "Other": ("refused", f"this version does not know what it changes; {_FINISH}, or ask the database itself"),
}
_SHARD_KEY_OPERATIONS: Final = ("create_shard_key", "delete_shard_key")
TABLE: Final = {
    "ChangeAliases": "actions=1:AliasOperations",
    "AliasOperations": (
        "create_alias=1:CreateAlias|action rename_alias=2:RenameAlias|action delete_alias=3:DeleteAlias|action"
    ),
    "CreateAlias": "collection_name=1:string alias_name=2:string",
    "RenameAlias": "old_alias_name=1:string new_alias_name=2:string",
    "DeleteAlias": "alias_name=1:string",
    "UpdateCollectionClusterSetupRequest": (
        "collection_name=1:string move_shard=2:MoveShard|operation replicate_shard=3:ReplicateShard|operation "
        "abort_transfer=4:AbortShardTransfer|operation drop_replica=5:Replica|operation "
        "create_shard_key=7:CreateShardKey|operation delete_shard_key=8:DeleteShardKey|operation "
        "restart_transfer=9:RestartTransfer|operation replicate_points=10:ReplicatePoints|operation"
    ),
    "DeleteCollection": "collection_name=1:string",  # as in every other message of this kind
}
_SHAPES = compile_shapes(TABLE)


class QdrantWriting:
    """See writing.WriteCodec."""

    around: Sequence[tuple[Transport, str]] = (("grpc", "/qdrant.Points/"), ("rest", "/collections/{collection}"))
    told_by_status: Collection[str] = _POINTS

    def find_names(
        self, operation: Operation, path: str, body: bytes, context: RequestContext = NO_CONTEXT
    ) -> Sequence[str]:
        """The collections, and aliases of them, that a request names."""
        if operation.name == "UpdateAliases":
            return _aliases_in_json(body) if operation.transport == "rest" else _aliases_in_wire(body)
        return (collection_of(path) if operation.transport == "rest" else _collection_in_wire(body),)

    def read_write(
        self, operation: Operation, path: str, body: bytes, context: RequestContext = NO_CONTEXT
    ) -> Write | None:
        """What a request changes; None for what changes nothing that a migration has to know."""
        rest = operation.transport == "rest"
        if operation.name in _POINTS:
            if not rest:
                return touches.read_points_write(operation.name, body)
            return rest_touches.read_points_write(operation.name, body, collection_of(path), _waits(context.query))
        if operation.name not in _EFFECTS or not operation.writes:
            return None
        effect, reason = _EFFECTS[operation.name]
        if operation.name == "UpdateAliases":
            named = _aliases_in_json(body) if rest else _aliases_in_wire(body)
            return Write(effect, named, reason=reason)
        if operation.name == "UpdateCollectionClusterSetup" and _changes_shard_keys(body, rest=rest):
            effect, reason = _EFFECTS["CreateShardKey"]
        waits = not rest or _waits(context.query, default=effect == "anything")
        return Write(effect, (collection_of(path) if rest else _collection_in_wire(body),), waits=waits, reason=reason)

    def edit(self, operation: Operation, body: bytes, edits: Sequence[Edit], holds: Sequence[Hold]) -> bytes:
        """The body with other vectors, and conditions held to some points."""
        if operation.transport == "grpc":
            return join_pieces(edit_wire(body, edits, [hold_filter(*hold) for hold in holds]))
        stretches = [stretch for hold in holds for stretch in hold_json_filter(body, *hold)]
        return join_pieces(edit_rest(body, edits, stretches))

    def find_owners(self, operation: Operation, request: Message) -> Sequence[Sequence[PointId]]:
        """The point that each slot of a write belongs to; none for a multi-vector."""
        assert isinstance(request, QdrantMessage)  # the dialect reads every request itself
        return find_owners(operation, request)

    def ask_ids(
        self, operation: Operation, path: str, body: bytes, condition: ConditionSlot, after: PointId | None, limit: int
    ) -> Question:
        """A Scroll with the condition's filter, ids alone."""
        place = condition.place
        if isinstance(place, rest_conditions.RestFilterPlace):
            return Question("POST", f"{_root(path)}/points/scroll", rest_conditions.scroll(body, place, after, limit))
        assert isinstance(place, conditions.FilterPlace)  # this codec's own address
        collection = _collection_in_wire(body)
        return Question("POST", "/qdrant.Points/Scroll", conditions.scroll(body, collection, place, after, limit))

    def read_ids(self, operation: Operation, answer: bytes) -> Listed:
        """The ids in a Scroll's answer."""
        if operation.transport == "grpc":
            return conditions.read_scrolled(answer)
        return rest_conditions.read_scrolled(answer)

    def ask_settled(self, operation: Operation, path: str, body: bytes) -> Question | None:
        """A Delete that waits and deletes nothing: a shard performs its updates in the order in which they came."""
        if operation.transport == "rest":
            place = f"{_root(path)}/points/delete?wait=true"
            return Question("POST", place, rest_conditions.NOTHING_DELETED)
        return Question("POST", "/qdrant.Points/Delete", conditions.nothing_deleted(_collection_in_wire(body)))

    def read_created(self, operation: Operation, answer: bytes, write: Write) -> Sequence[PointId]:
        """Qdrant's clients make all ids."""
        return ()


def _root(path: str) -> str:
    """The collection's own path, as it is spelt in a path below it."""
    return "/".join(path.split("/", 3)[:3])


def _waits(query: str, *, default: bool = False) -> bool:
    given = parse_qs(query).get("wait")
    return default if given is None else given[-1] == "true"


def _collection_in_wire(body: bytes) -> str:
    found = scan(body, (root_span(body, "request"),), _SHAPES["DeleteCollection"])
    return read_text(body, found, "collection_name")


def _changes_shard_keys(body: bytes, *, rest: bool) -> bool:
    if rest:
        return bool({"create_sharding_key", "drop_sharding_key"} & set(_parse(body)))
    message = "UpdateCollectionClusterSetupRequest"
    found = scan(body, (root_span(body, message),), _SHAPES[message])
    return any(name in found for name in _SHARD_KEY_OPERATIONS)


def _aliases_in_wire(body: bytes) -> list[str]:
    """Every collection and alias that a change of aliases names."""
    names = []
    for span in scan(body, (root_span(body, "ChangeAliases"),), _SHAPES["ChangeAliases"]).get("actions", ()):
        for kind, parts in scan(body, (span,), _SHAPES["AliasOperations"]).items():
            if kind:
                message = "".join(map(str.capitalize, kind.split("_")))
                action = scan(body, parts, _SHAPES[message])
                names += [read_text(body, action, name) for name in action]
    return names


def _aliases_in_json(body: bytes) -> list[str]:
    return list(_strings(_parse(body)))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)


def _parse(body: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedError(f"not valid JSON at byte {error.pos}: {error.msg}") from error
    return parsed if isinstance(parsed, dict) else {}
