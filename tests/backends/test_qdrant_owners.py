"""Which points the vectors of a write belong to, slot by slot in the order of the dialect's own reading."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest
import qdrant_client.grpc as grpc

from crossfade.backends.dialect import VectorSlot
from crossfade.backends.index import PointId
from crossfade.backends.qdrant import QdrantDialect

DIALECT = QdrantDialect()
Op = grpc.PointsUpdateOperation


def find(transport: Any, method: str, path: str, body: bytes) -> list[tuple[float | str, list[PointId]]]:
    """What each slot holds first, which tells it from the others, and whose it is."""
    operation = DIALECT.find_operation(transport, method, path)
    assert operation is not None
    message = DIALECT.read_request(operation, path, body)
    assert DIALECT.writing is not None
    owners = DIALECT.writing.find_owners(operation, message)
    assert len(owners) == len(message.slots)
    return [
        (float(slot.rows[0, 0]) if isinstance(slot, VectorSlot) else getattr(slot, "text", ""), list(owner))
        for slot, owner in zip(message.slots, owners, strict=True)
    ]


def dense(value: float) -> grpc.Vector:
    return grpc.Vector(dense=grpc.DenseVector(data=[value, 0.0]))


def multi(value: float) -> grpc.Vector:
    rows = [grpc.DenseVector(data=[value, 0.0])] * 2
    return grpc.Vector(multi_dense=grpc.MultiDenseVector(vectors=rows))


def named(**vectors: grpc.Vector) -> grpc.Vectors:
    return grpc.Vectors(vectors=grpc.NamedVectors(vectors=vectors))


def number(value: int) -> grpc.PointId:
    return grpc.PointId(num=value)


STRUCTS = [
    grpc.PointStruct(id=number(7), vectors=grpc.Vectors(vector=dense(1))),
    grpc.PointStruct(id=number(8)),
    grpc.PointStruct(id=number(9), vectors=named(a=dense(2), b=multi(3), s=grpc.Vector(sparse=grpc.SparseVector()))),
    grpc.PointStruct(id=grpc.PointId(uuid="u"), vectors=named(a=grpc.Vector(document=grpc.Document(text="t")))),
    grpc.PointStruct(vectors=grpc.Vectors(vector=dense(4))),
]
OWNERS = [(1.0, [7]), (2.0, [9]), (3.0, []), ("t", ["u"]), (4.0, [])]


def test_vectors_of_a_grpc_upsert_belong_to_their_points() -> None:
    body = grpc.UpsertPoints(collection_name="c", points=STRUCTS).SerializeToString()
    assert sorted(map(str, find("grpc", "POST", "/qdrant.Points/Upsert", body))) == sorted(map(str, OWNERS))


def test_vectors_of_a_grpc_batch_belong_to_their_points() -> None:
    moved = [grpc.PointVectors(id=number(5), vectors=named(a=dense(5)))]
    batch = grpc.UpdateBatchPoints(
        collection_name="c",
        operations=[
            Op(upsert=Op.PointStructList(points=STRUCTS[:1])),
            Op(delete_points=Op.DeletePoints(points=grpc.PointsSelector(points=grpc.PointsIdsList(ids=[number(6)])))),
            Op(update_vectors=Op.UpdateVectors(points=moved)),
        ],
    )
    found = find("grpc", "POST", "/qdrant.Points/UpdateBatch", batch.SerializeToString())
    assert found == [(1.0, [7]), (5.0, [5])]
    alone = grpc.UpdatePointVectors(collection_name="c", points=moved).SerializeToString()
    assert find("grpc", "POST", "/qdrant.Points/UpdateVectors", alone) == [(5.0, [5])]


POINTS = [
    {"id": 7, "vector": [1, 0]},
    {"vector": {"a": [2, 0], "b": [[3, 0], [3, 0]], "s": {"indices": [1], "values": [1]}}, "id": "u"},
    {"id": 9},
    {"id": 10, "vector": {"a": {"text": "t", "model": "m"}}},
    {"vector": [4, 0]},
]
JSON_OWNERS = [(1.0, [7]), (2.0, ["u"]), (3.0, []), ("t", [10]), (4.0, [])]
COLUMNS = {"ids": [1, "v", 3], "vectors": {"a": [[1, 0], [2, 0], [3, 0]], "b": [[4, 0], {"indices": []}, [5, 0]]}}
COLUMN_OWNERS = [(1.0, [1]), (2.0, ["v"]), (3.0, [3]), (4.0, [1]), (5.0, [3])]


@pytest.mark.parametrize(
    ("body", "owners"),
    [
        ({"points": POINTS}, JSON_OWNERS),
        ({"batch": COLUMNS}, COLUMN_OWNERS),
        ({"batch": {"ids": [1, 2], "vectors": [[8, 0], [9, 0], [10, 0]]}}, [(8.0, [1]), (9.0, [2]), (10.0, [])]),
    ],
    ids=["points", "named columns", "columns"],
)
def test_vectors_of_a_rest_write_belong_to_their_points(body: Any, owners: Any) -> None:
    assert find("rest", "PUT", "/collections/c/points", orjson.dumps(body)) == owners
    batch = {"operations": [{"upsert": body}, {"delete": {"points": [77]}}, {"update_vectors": {"points": POINTS}}]}
    assert find("rest", "POST", "/collections/c/points/batch", orjson.dumps(batch)) == [*owners, *JSON_OWNERS]


def test_many_points_in_any_order_keep_their_vectors() -> None:
    random.seed(4)
    ids = random.sample(range(10**6), 300)
    points = [grpc.PointStruct(id=number(one), vectors=grpc.Vectors(vector=dense(one))) for one in ids]
    body = grpc.UpsertPoints(collection_name="c", points=points).SerializeToString()
    assert find("grpc", "POST", "/qdrant.Points/Upsert", body) == [(float(one), [one]) for one in ids]
