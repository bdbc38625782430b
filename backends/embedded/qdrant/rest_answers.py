"""Response messages to the JSON of Qdrant's REST API, and the envelope around it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import orjson
from qdrant_client import grpc as pb
from qdrant_client.conversions.conversion import GrpcToRest

from .values import read_id, read_payload, read_value

Json = Any


def envelope(result: Json, seconds: float) -> bytes:
    """The body of a success."""
    answer = {"result": result, "status": "ok", "time": seconds}
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def failure(text: str, seconds: float) -> bytes:
    """The body of a failure."""
    return orjson.dumps({"status": {"error": text}, "time": seconds})


def single(number: float) -> np.float32:
    """A float that is written with the digits of single precision, as Qdrant's scores and vectors are."""
    return np.float32(number)


def _vector(vector: pb.VectorOutput) -> Json:
    match vector.WhichOneof("vector"):
        case "sparse":
            indices = list(vector.sparse.indices)
            return {"indices": indices, "values": np.fromiter(vector.sparse.values, np.float32)}
        case "multi_dense":
            return [np.fromiter(row.data, np.float32) for row in vector.multi_dense.vectors]
    return np.fromiter(vector.dense.data, np.float32)


def vectors(message: pb.VectorsOutput) -> Json:
    """One vector, or an object of named ones."""
    if message.WhichOneof("vectors_options") == "vectors":
        return {name: _vector(vector) for name, vector in message.vectors.vectors.items()}
    return _vector(message.vector)


def _point(point: pb.ScoredPoint | pb.RetrievedPoint, with_payload: bool) -> dict[str, Json]:
    answer: dict[str, Json] = {"id": read_id(point.id)}
    if isinstance(point, pb.ScoredPoint):
        answer |= {"version": point.version, "score": single(point.score)}
    if with_payload:
        answer["payload"] = read_payload(point.payload)
    if point.HasField("vectors"):
        answer["vector"] = vectors(point.vectors)
    if point.HasField("order_value"):
        answer["order_value"] = getattr(point.order_value, point.order_value.WhichOneof("variant") or "int")
    return answer


def points(found: Iterable[pb.ScoredPoint | pb.RetrievedPoint], with_payload: bool) -> list[Json]:
    """Points; `payload` is there whenever it was asked for, be it empty."""
    return [_point(point, with_payload) for point in found]


def groups(result: pb.GroupsResult, with_payload: bool, lookup_payload: bool) -> Json:
    """Groups with their keys, hits and looked-up points."""
    answer = []
    for group in result.groups:
        entry: dict[str, Json] = {
            "id": getattr(group.id, group.id.WhichOneof("kind") or "string_value"),
            "hits": points(group.hits, with_payload),
        }
        if group.HasField("lookup"):
            entry["lookup"] = _point(group.lookup, lookup_payload)
        answer.append(entry)
    return {"groups": answer}


def update(result: pb.UpdateResult) -> Json:
    """The number and state of a write."""
    status = pb.UpdateStatus.Name(result.status).lower()
    return {"operation_id": result.operation_id, "status": status}


def facet(hits: Iterable[pb.FacetHit]) -> Json:
    """Facet values with their counts."""
    return {
        "hits": [
            {"value": getattr(hit.value, hit.value.WhichOneof("variant") or "string_value"), "count": hit.count}
            for hit in hits
        ]
    }


def info(message: pb.CollectionInfo) -> Json:
    """A collection's status and configuration."""
    answer: dict[str, Json] = GrpcToRest.convert_collection_info(message).model_dump(mode="json", exclude_unset=True)
    metadata = {key: read_value(value) for key, value in message.config.metadata.items()}
    if metadata:
        answer["config"]["metadata"] = metadata
    return answer


def aliases(found: Iterable[pb.AliasDescription]) -> Json:
    """Aliases and the collections that they stand for."""
    return {"aliases": [{"alias_name": alias.alias_name, "collection_name": alias.collection_name} for alias in found]}


def cluster(message: pb.CollectionClusterInfoResponse) -> Json:
    """The shards of a collection."""
    shards = [
        {"shard_id": shard.shard_id, "points_count": shard.points_count, "state": pb.ReplicaState.Name(shard.state)}
        for shard in message.local_shards
    ]
    return {
        "peer_id": message.peer_id,
        "shard_count": message.shard_count,
        "local_shards": shards,
        "remote_shards": [],
        "shard_transfers": [],
    }


def pairs(matrix: pb.SearchMatrixPairs) -> Json:
    """A distance matrix as pairs of points."""
    rows = [{"a": read_id(pair.a), "b": read_id(pair.b), "score": single(pair.score)} for pair in matrix.pairs]
    return {"pairs": rows}


def offsets(matrix: pb.SearchMatrixOffsets) -> Json:
    """A distance matrix as coordinates."""
    return {
        "offsets_row": list(matrix.offsets_row),
        "offsets_col": list(matrix.offsets_col),
        "scores": np.fromiter(matrix.scores, np.float32),
        "ids": [read_id(point) for point in matrix.ids],
    }
