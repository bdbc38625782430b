"""Which points a gRPC write names: every kind, by ids and by filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..wire import Found, Span, compile_shapes, read_text, read_uint, root_span, scan
from ..writing import ConditionSlot, Step, Write
from .conditions import FilterPlace, read_id, read_ids

_BATCH: Final = "PointsUpdateOperation"
TABLE: Final = {
    "PointsIdsList": "ids=1:PointId",
    "PointsSelector": "points=1:PointsIdsList|points_selector_one_of filter=2:Filter|points_selector_one_of",
    "PointStruct": "id=1:PointId",
    "PointVectors": "id=1:PointId",
    "UpsertPoints": "collection_name=1:string wait=2:bool points=3:PointStruct",
    "UpdatePointVectors": "collection_name=1:string wait=2:bool points=3:PointVectors",
    "DeletePoints": (
        "collection_name=1:string wait=2:bool points=3:PointsSelector shard_key_selector=5:ShardKeySelector"
    ),
    "ClearPayloadPoints": (
        "collection_name=1:string wait=2:bool points=3:PointsSelector shard_key_selector=5:ShardKeySelector"
    ),
    "SetPayloadPoints": (
        "collection_name=1:string wait=2:bool points_selector=5:PointsSelector shard_key_selector=7:ShardKeySelector"
    ),
    "DeletePayloadPoints": (
        "collection_name=1:string wait=2:bool points_selector=5:PointsSelector shard_key_selector=7:ShardKeySelector"
    ),
    "DeletePointVectors": (
        "collection_name=1:string wait=2:bool points_selector=3:PointsSelector shard_key_selector=6:ShardKeySelector"
    ),
    "UpdateBatchPoints": "collection_name=1:string wait=2:bool operations=3:PointsUpdateOperation",
    _BATCH: (
        "upsert=1:PointsUpdateOperation.PointStructList|operation "
        "delete_deprecated=2:PointsSelector|operation "
        "set_payload=3:PointsUpdateOperation.SetPayload|operation "
        "overwrite_payload=4:PointsUpdateOperation.OverwritePayload|operation "
        "delete_payload=5:PointsUpdateOperation.DeletePayload|operation "
        "clear_payload_deprecated=6:PointsSelector|operation "
        "update_vectors=7:PointsUpdateOperation.UpdateVectors|operation "
        "delete_vectors=8:PointsUpdateOperation.DeleteVectors|operation "
        "delete_points=9:PointsUpdateOperation.DeletePoints|operation "
        "clear_payload=10:PointsUpdateOperation.ClearPayload|operation"
    ),
    f"{_BATCH}.PointStructList": "points=1:PointStruct",
    f"{_BATCH}.UpdateVectors": "points=1:PointVectors",
    f"{_BATCH}.SetPayload": "points_selector=2:PointsSelector shard_key_selector=3:ShardKeySelector",
    f"{_BATCH}.OverwritePayload": "points_selector=2:PointsSelector shard_key_selector=3:ShardKeySelector",
    f"{_BATCH}.DeletePayload": "points_selector=2:PointsSelector shard_key_selector=3:ShardKeySelector",
    f"{_BATCH}.DeleteVectors": "points_selector=1:PointsSelector shard_key_selector=3:ShardKeySelector",
    f"{_BATCH}.DeletePoints": "points=1:PointsSelector shard_key_selector=2:ShardKeySelector",
    f"{_BATCH}.ClearPayload": "points=1:PointsSelector shard_key_selector=2:ShardKeySelector",
}
_SHAPES = compile_shapes(TABLE)
_MESSAGES: Final = {
    "Upsert": "UpsertPoints",
    "UpdateVectors": "UpdatePointVectors",
    "Delete": "DeletePoints",
    "SetPayload": "SetPayloadPoints",
    "OverwritePayload": "SetPayloadPoints",
    "DeletePayload": "DeletePayloadPoints",
    "ClearPayload": "ClearPayloadPoints",
    "DeleteVectors": "DeletePointVectors",
}
_PARTS: Final = {
    "upsert": f"{_BATCH}.PointStructList",
    "set_payload": f"{_BATCH}.SetPayload",
    "overwrite_payload": f"{_BATCH}.OverwritePayload",
    "delete_payload": f"{_BATCH}.DeletePayload",
    "update_vectors": f"{_BATCH}.UpdateVectors",
    "delete_vectors": f"{_BATCH}.DeleteVectors",
    "delete_points": f"{_BATCH}.DeletePoints",
    "clear_payload": f"{_BATCH}.ClearPayload",
}
_STRUCTS: Final = {
    "Upsert": "PointStruct",
    "upsert": "PointStruct",
    "UpdateVectors": "PointVectors",
    "update_vectors": "PointVectors",
}
UNKNOWN_KIND: Final = "it changes points in a way that this version does not know"


class _UnknownKindError(Exception):
    """Points are named in a way that the tables do not have."""


def read_points_write(name: str, body: bytes) -> Write:
    """A write of points, by its method's name. Raises MalformedError."""
    message = "UpdateBatchPoints" if name == "UpdateBatch" else _MESSAGES[name]
    found = scan(body, (root_span(body, message),), _SHAPES[message])
    collections, waits = (read_text(body, found, "collection_name"),), bool(read_uint(body, found, "wait"))
    try:
        if name == "UpdateBatch":
            steps = [_read_operation(body, span) for span in found.get("operations", ())]
        else:
            steps = [_read_step(name, body, found)]
    except _UnknownKindError:
        return Write("anything", collections, waits=waits, reason=UNKNOWN_KIND)
    return Write("points", collections, steps, waits)


def _read_operation(body: bytes, span: Span) -> Step:
    found = scan(body, (span,), _SHAPES[_BATCH])
    for name in ("delete_deprecated", "clear_payload_deprecated"):
        if name in found:
            return _read_selector(body, found[name], ())
    for name, message in _PARTS.items():
        if name in found:
            return _read_step(name, body, scan(body, found[name], _SHAPES[message]))
    raise _UnknownKindError


def _read_step(name: str, body: bytes, found: Found) -> Step:
    if name in _STRUCTS:
        shape = _SHAPES[_STRUCTS[name]]
        read = (read_id(body, scan(body, (span,), shape).get("id", ())) for span in found.get("points", ()))
        return Step([one for one in read if one is not None])
    selector = found.get("points_selector", found.get("points", []))
    return _read_selector(body, selector, found.get("shard_key_selector", ()))


def _read_selector(body: bytes, spans: Sequence[Span], shard_keys: Sequence[Span]) -> Step:
    found = scan(body, spans, _SHAPES["PointsSelector"])
    if "points" in found:
        return Step(read_ids(body, scan(body, found["points"], _SHAPES["PointsIdsList"]).get("ids", ())))
    if "filter" in found:
        return Step(condition=ConditionSlot(FilterPlace(found["filter"], shard_keys)))
    if any(span[3] > span[2] for span in spans):
        raise _UnknownKindError
    return Step()  # it names none, and the database will refuse it
