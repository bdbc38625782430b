"""Vectors of the new model that clients write while a collection is migrated: stored mapped, journalled as they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
import qdrant_client.grpc as qdrant

from crossfade.adapters.base import Adapter, Float32
from crossfade.backends.index import PointId
from tests.proxy.capture_stage import SPEC, Stage, open_stage, wait_closed
from tests.proxy.encoding_function import encode_one
from tests.proxy.recording import Recorders
from tests.proxy.toy_adapters import NEW, toy_adapter, toy_vectors

VECTORS = toy_vectors(5, 6, NEW)
Op = qdrant.PointsUpdateOperation
Loaded = tuple[Stage, Adapter]


@pytest.fixture(scope="module")
def loaded(recorders: Recorders, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """Two workers, so that every write may come to either."""
    upstream = f'grpc: "{recorders.grpc.address}", rest: "{recorders.rest.address}"'
    with open_stage(tmp_path_factory.mktemp("natives"), upstream, workers=2) as stage:
        yield stage, toy_adapter()


@pytest.fixture(scope="module", params=["", "title"], ids=["unnamed", "named"])
def migrated(request: pytest.FixtureRequest, loaded: Loaded) -> str:
    """The vector that is re-encoded."""
    name: str = request.param
    loaded[0].migrate(SPEC.model_copy(update={"field": name}))
    return name


@pytest.fixture
def field(migrated: str, loaded: Loaded, recorded: Recorders) -> str:
    """The same, with nothing journalled."""
    loaded[0].forget()
    return migrated


def check_natives(loaded: Loaded, sent: list[tuple[PointId, Float32]]) -> list[Float32]:
    """The journal holds these vectors as they came, beside what the old index was given; returns the latter."""
    stage, adapter = loaded
    wait_closed(stage, [point for point, _ in sent])
    found = {point: (stored, vector) for point, stored, vector in stage.natives()}
    assert found.keys() == {point for point, _ in sent}
    stored = []
    for point, vector in sent:
        mapped = adapter.document.apply(vector.reshape(1, -1))[0]
        assert np.array_equal(np.frombuffer(found[point][1], "<f4"), vector)
        assert np.allclose(np.frombuffer(found[point][0], "<f4"), mapped, atol=1e-5)
        stored.append(np.frombuffer(found[point][0], "<f4"))
    return stored


def wire_vectors(field: str, vector: Float32) -> qdrant.Vectors:
    dense = qdrant.Vector(dense=qdrant.DenseVector(data=vector.tolist()))
    if not field:
        return qdrant.Vectors(vector=dense)
    other = qdrant.Vector(dense=qdrant.DenseVector(data=VECTORS[5].tolist()))
    return qdrant.Vectors(vectors=qdrant.NamedVectors(vectors={field: dense, "beside": other}))


def wire_data(field: str, vectors: qdrant.Vectors) -> Float32:
    dense = vectors.vectors.vectors[field] if field else vectors.vector
    return np.asarray(dense.dense.data, dtype=np.float32)


def test_a_grpc_upsert(field: str, loaded: Loaded, recorded: Recorders) -> None:
    ids: list[PointId] = [3, "c2a1a7d0-9d2e-4b8e-9f0a-5d1f6f5b7c11", 5]
    points = [
        qdrant.PointStruct(
            id=qdrant.PointId(num=one) if isinstance(one, int) else qdrant.PointId(uuid=one),
            vectors=wire_vectors(field, vector),
        )
        for one, vector in zip(ids, VECTORS, strict=False)
    ]
    message = qdrant.UpsertPoints(collection_name="docs", points=points)
    with loaded[0].serving.channel() as channel:
        channel.unary_unary("/qdrant.Points/Upsert")(message.SerializeToString(), timeout=20)
    stored = check_natives(loaded, list(zip(ids, VECTORS, strict=False)))
    sent = qdrant.UpsertPoints.FromString(recorded.grpc.last.body)
    for point, row in zip(sent.points, stored, strict=True):
        assert np.array_equal(wire_data(field, point.vectors), row)


def test_a_grpc_batch_beside_filters(field: str, loaded: Loaded, recorded: Recorders) -> None:
    recorded.grpc.answer = lambda call, context: b""  # a filter that names no points
    condition = qdrant.Condition(field=qdrant.FieldCondition(key="a", match=qdrant.Match(integer=1)))
    selector = qdrant.PointsSelector(filter=qdrant.Filter(must=[condition]))
    point = qdrant.PointStruct(id=qdrant.PointId(num=8), vectors=wire_vectors(field, VECTORS[0]))
    moved = qdrant.PointVectors(id=qdrant.PointId(num=9), vectors=wire_vectors(field, VECTORS[1]))
    batch = qdrant.UpdateBatchPoints(
        collection_name="docs",
        operations=[
            Op(upsert=Op.PointStructList(points=[point])),
            Op(delete_points=Op.DeletePoints(points=selector)),
            Op(update_vectors=Op.UpdateVectors(points=[moved])),
        ],
    )
    with loaded[0].serving.channel() as channel:
        channel.unary_unary("/qdrant.Points/UpdateBatch")(batch.SerializeToString(), timeout=20)
    first, second = check_natives(loaded, [(8, VECTORS[0]), (9, VECTORS[1])])
    sent = qdrant.UpdateBatchPoints.FromString(recorded.grpc.last.body).operations
    assert np.array_equal(wire_data(field, sent[0].upsert.points[0].vectors), first)
    assert np.array_equal(wire_data(field, sent[2].update_vectors.points[0].vectors), second)
    (_, held) = sent[1].delete_points.points.filter.must
    assert [one.num for one in held.has_id.has_id] == [8], "what the step before has written may match"


def json_vector(field: str, vector: Float32) -> Any:
    return {field: vector.tolist(), "beside": VECTORS[5].tolist()} if field else vector.tolist()


def columns(field: str, rows: Float32) -> Any:
    return {field: rows.tolist()} if field else rows.tolist()


def json_rows(field: str, vectors: list[Any]) -> Float32:
    return np.asarray([one[field] if field else one for one in vectors], dtype=np.float32)


def test_a_rest_upsert_of_points_and_of_columns(field: str, loaded: Loaded, recorded: Recorders) -> None:
    url = f"{loaded[0].serving.rest}/collections/docs/points?wait=true"
    points = [{"id": one, "vector": json_vector(field, VECTORS[one])} for one in range(3)]
    assert httpx.put(url, json={"points": points}).status_code == 200
    stored = check_natives(loaded, [(one, VECTORS[one]) for one in range(3)])
    sent = orjson.loads(recorded.rest.last.body)["points"]
    assert np.array_equal(json_rows(field, [one["vector"] for one in sent]), np.stack(stored))
    loaded[0].forget()
    batch = {"ids": [7, 8], "vectors": columns(field, VECTORS[3:5])}
    assert httpx.put(url, json={"batch": batch}).status_code == 200
    check_natives(loaded, [(7, VECTORS[3]), (8, VECTORS[4])])


def test_a_rest_batch_and_updated_vectors(field: str, loaded: Loaded, recorded: Recorders) -> None:
    url = f"{loaded[0].serving.rest}/collections/docs/points"
    moved = {"points": [{"id": 2, "vector": json_vector(field, VECTORS[2])}]}
    assert httpx.put(f"{url}/vectors", json=moved).status_code == 200
    check_natives(loaded, [(2, VECTORS[2])])
    loaded[0].forget()
    upsert = {"batch": {"ids": [7], "vectors": columns(field, VECTORS[3:4])}}
    operations = [{"delete": {"points": [7]}}, {"upsert": upsert}, {"update_vectors": moved}]
    assert httpx.post(f"{url}/batch", json={"operations": operations}).status_code == 200
    check_natives(loaded, [(7, VECTORS[3]), (2, VECTORS[2])])


def test_a_text_that_is_encoded_here_is_journalled_as_its_vector(loaded: Loaded, recorded: Recorders) -> None:
    stage, _ = loaded
    stage.migrate()
    stage.forget()
    points = [{"id": 4, "vector": {"text": "hello", "model": "new"}}]
    assert httpx.put(f"{stage.serving.rest}/collections/docs/points", json={"points": points}).status_code == 200
    check_natives(loaded, [(4, encode_one("hello", "passage"))])


def test_vectors_of_another_field_and_of_the_old_model_are_no_natives(loaded: Loaded, recorded: Recorders) -> None:
    stage, _ = loaded
    stage.migrate(SPEC.model_copy(update={"field": "title"}))
    stage.forget()
    url = f"{stage.serving.rest}/collections/docs/points"
    points = [{"id": 4, "vector": {"beside": VECTORS[0].tolist()}}]
    assert httpx.put(url, json={"points": points}).status_code == 200
    old = [{"id": 5, "vector": {"title": [0.5] * 16}}]
    assert httpx.put(url, json={"points": old}, headers={"x-embedding-model": "old"}).status_code == 200
    wait_closed(stage, [4, 5])
    assert stage.natives() == []
