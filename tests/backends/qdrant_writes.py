"""Every write of Qdrant's API as messages and JSON bodies, by ids and by filter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import qdrant_client.grpc as grpc

from crossfade.backends.index import PointId

UUID = "c2a1a7d0-9d2e-4b8e-9f0a-5d1f6f5b7c11"
IDS: Sequence[PointId] = (7, UUID, 2**63 + 5)
FILTER = grpc.Filter(
    should=[grpc.Condition(field=grpc.FieldCondition(key="a", match=grpc.Match(integer=1)))],
    must_not=[grpc.Condition(is_null=grpc.IsNullCondition(key="b"))],
)
SHARD = grpc.ShardKeySelector(shard_keys=[grpc.ShardKey(keyword="eu")])
Op = grpc.PointsUpdateOperation
Kind = Literal["ids", "filter"]


def point_id(point: PointId) -> grpc.PointId:
    return grpc.PointId(num=point) if isinstance(point, int) else grpc.PointId(uuid=point)


def selector(kind: Kind) -> grpc.PointsSelector:
    if kind == "filter":
        return grpc.PointsSelector(filter=FILTER)
    return grpc.PointsSelector(points=grpc.PointsIdsList(ids=map(point_id, IDS)))


def vectors() -> grpc.Vectors:
    return grpc.Vectors(vector=grpc.Vector(dense=grpc.DenseVector(data=[1.0, 2.0])))


def structs() -> list[grpc.PointStruct]:
    return [grpc.PointStruct(id=point_id(one), vectors=vectors()) for one in IDS]


def point_vectors() -> list[grpc.PointVectors]:
    return [grpc.PointVectors(id=point_id(one), vectors=vectors()) for one in IDS]


SELECTED = ("Delete", "SetPayload", "OverwritePayload", "DeletePayload", "ClearPayload", "DeleteVectors")
PAYLOAD = {"a": grpc.Value(integer_value=1)}


def wire_write(name: str, kind: Kind) -> Any:
    common: dict[str, Any] = {"collection_name": "docs", "wait": True}
    chosen: Any = selector(kind)
    if name == "Upsert":
        return grpc.UpsertPoints(**common, points=structs(), update_filter=FILTER, shard_key_selector=SHARD)
    if name == "UpdateVectors":
        return grpc.UpdatePointVectors(**common, points=point_vectors(), update_filter=FILTER)
    if name == "Delete":
        return grpc.DeletePoints(**common, points=chosen, shard_key_selector=SHARD)
    if name in ("SetPayload", "OverwritePayload"):
        return grpc.SetPayloadPoints(**common, points_selector=chosen, payload=PAYLOAD, shard_key_selector=SHARD)
    if name == "DeletePayload":
        return grpc.DeletePayloadPoints(**common, points_selector=chosen, keys=["a"], shard_key_selector=SHARD)
    if name == "ClearPayload":
        return grpc.ClearPayloadPoints(**common, points=chosen, shard_key_selector=SHARD)
    return grpc.DeletePointVectors(
        **common, points_selector=chosen, vectors=grpc.VectorsSelector(names=["v"]), shard_key_selector=SHARD
    )


def wire_steps(kind: Kind) -> list[Any]:
    chosen = selector(kind)
    return [
        Op(delete_deprecated=chosen),
        Op(set_payload=Op.SetPayload(points_selector=chosen, payload=PAYLOAD, shard_key_selector=SHARD)),
        Op(overwrite_payload=Op.OverwritePayload(points_selector=chosen, payload=PAYLOAD, shard_key_selector=SHARD)),
        Op(delete_payload=Op.DeletePayload(points_selector=chosen, keys=["a"], shard_key_selector=SHARD)),
        Op(clear_payload_deprecated=chosen),
        Op(delete_vectors=Op.DeleteVectors(points_selector=chosen, shard_key_selector=SHARD)),
        Op(delete_points=Op.DeletePoints(points=chosen, shard_key_selector=SHARD)),
        Op(clear_payload=Op.ClearPayload(points=chosen, shard_key_selector=SHARD)),
    ]


JSON_IDS: list[PointId] = [7, UUID, 2**63 + 5]
JSON_FILTER = {"should": [{"key": "a", "match": {"value": 1}}], "must_not": {"is_null": {"key": "b"}}}
JSON_BODIES: dict[str, dict[str, Any]] = {
    "Delete": {},
    "SetPayload": {"payload": {"points": [99], "filter": {"id": 98}}, "key": "a"},
    "OverwritePayload": {"payload": {"a": 1}},
    "DeletePayload": {"keys": ["a"]},
    "ClearPayload": {},
    "DeleteVectors": {"vector": ["v"]},
}
KEYS = {
    "Delete": "delete",
    "SetPayload": "set_payload",
    "OverwritePayload": "overwrite_payload",
    "DeletePayload": "delete_payload",
    "ClearPayload": "clear_payload",
    "DeleteVectors": "delete_vectors",
}
JSON_POINTS = [{"id": one, "vector": [1, 2], "payload": {"id": 5}} for one in JSON_IDS]
