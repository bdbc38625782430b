"""MilvusIndex against the embedded Milvus, and against a real Milvus 2.3 where CROSSFADE_MILVUS names one."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient

from crossfade.backends.dialect import Float32
from crossfade.backends.embedded.milvus import MilvusServer
from crossfade.backends.index import FieldInfo, IndexHealth, IndexRefusedError, Point, SparseVector
from crossfade.backends.milvus.index import MilvusIndex, judge_health

REAL = list(filter(None, os.environ.get("CROSSFADE_MILVUS", "").split(",")))


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with MilvusServer(tmp_path_factory.mktemp("milvus") / "data") as running:
        yield f"http://127.0.0.1:{running.port}"


@pytest.fixture(params=["embedded", *REAL])
def uri(request: pytest.FixtureRequest, embedded: str) -> str:
    return embedded if request.param == "embedded" else f"http://{request.param}"


@pytest.fixture
async def index(uri: str) -> AsyncIterator[MilvusIndex]:
    opened = MilvusIndex(lambda database: MilvusClient(uri, db_name=database))
    yield opened
    await opened.close()


def rows(n: int, dim: int = 8, seed: int = 0) -> Float32:
    made: Float32 = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return made


def make(uri: str, n: int = 60, dim: int = 8, *, text_ids: bool = False) -> tuple[str, Float32]:
    """A collection whose rows were written in no order."""
    client, name = MilvusClient(uri), f"c{uuid.uuid4().hex}"
    schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
    kind: dict[str, Any] = (
        {"datatype": DataType.VARCHAR, "max_length": 20} if text_ids else {"datatype": DataType.INT64}
    )
    schema.add_field("pk", is_primary=True, **kind)
    schema.add_field("emb", DataType.FLOAT_VECTOR, dim=dim)
    schema.add_field("title", DataType.VARCHAR, max_length=50)
    settings = client.prepare_index_params()
    settings.add_index("emb", index_type="FLAT", metric_type="COSINE")
    client.create_collection(name, schema=schema, index_params=settings)
    made = rows(n, dim)
    for at in np.random.default_rng(3).permutation(n).tolist():
        point = f"p{at:04d}" if text_ids else at
        row = {"pk": point, "emb": made[at].tolist(), "title": f"t{at}", "body": {"text": [f"b{at}"]}}
        client.insert(name, [row])
    return name, made


async def test_a_collection_is_described_by_its_fields(uri: str, index: MilvusIndex) -> None:
    name, _ = make(uri, 1)
    assert (await index.describe(name)).fields == (FieldInfo("emb", 8, "cosine", False),)
    assert await index.exists(name)
    assert not await index.exists("absent")
    await index.drop(name)
    assert not await index.exists(name)
    await index.drop(name)


@pytest.mark.parametrize("text_ids", [False, True])
async def test_ids_are_listed_in_order_page_by_page_without_a_gap(uri: str, index: MilvusIndex, text_ids: bool) -> None:
    name, made = make(uri, text_ids=text_ids)
    listed: list[Any] = []
    start = None
    while True:
        page = await index.list_ids(name, start, 7)
        assert len(page.ids) <= 7
        listed += page.ids
        start = page.next
        if start is None:
            break
    assert listed == [f"p{at:04d}" if text_ids else at for at in range(len(made))]
    assert await index.count(name) == len(made)


async def test_a_sample_is_the_same_for_the_same_seed_and_never_repeats(uri: str, index: MilvusIndex) -> None:
    name, made = make(uri)
    first = await index.sample_ids(name, 20, 5)
    assert list(first) == list(await index.sample_ids(name, 20, 5))
    assert len(set(first)) == 20
    assert set(first) != set(await index.sample_ids(name, 20, 6))
    assert set(await index.sample_ids(name, 500, 5)) == set(range(len(made)))


async def test_points_and_texts_are_read_in_the_order_asked_without_those_that_are_gone(
    uri: str, index: MilvusIndex
) -> None:
    name, made = make(uri)
    found = await index.fetch(name, [9, 4000, 2])
    assert [point.id for point in found] == [9, 2]
    np.testing.assert_allclose(found[0].vectors["emb"], made[9], rtol=1e-6)
    assert found[0].payload == {"title": "t9", "body": {"text": ["b9"]}}
    lean = await index.fetch(name, [9], ["emb"], payload=False)
    assert (dict(lean[0].payload), list(lean[0].vectors)) == ({}, ["emb"])
    assert list(await index.fetch_texts(name, [9, 4000], "{title}: {body.text}")) == ["t9: b9", None]
    assert list(await index.fetch(name, [])) == []


async def test_points_written_are_the_points_read_and_deleted_ones_are_gone(uri: str, index: MilvusIndex) -> None:
    name, _ = make(uri, 3)
    vectors = rows(3, seed=8)
    await index.upsert(
        name, [Point(at, {"emb": vectors[at]}, {"title": "new", "body": {}, "n": at}) for at in range(3)]
    )
    found = await index.fetch(name, [0, 1, 2])
    np.testing.assert_allclose([point.vectors["emb"] for point in found], vectors, rtol=1e-6)
    assert [point.payload for point in found] == [{"title": "new", "body": {}, "n": at} for at in range(3)]
    await index.delete(name, [1, 77])
    assert [point.id for point in await index.fetch(name, [0, 1, 2])] == [0, 2]


async def test_a_search_finds_the_nearest_first(uri: str, index: MilvusIndex) -> None:
    name, made = make(uri)
    unit = made / np.linalg.norm(made, axis=1, keepdims=True)
    hits = await index.search(name, "emb", made[:3], 5)
    for at, found in enumerate(hits):
        cosines = unit @ unit[at]
        assert list(found.ids) == np.argsort(-cosines)[:5].tolist()
        np.testing.assert_allclose(found.scores, np.sort(cosines)[::-1][:5], atol=1e-5)


async def test_a_collection_is_made_like_another_for_vectors_of_another_length(uri: str, index: MilvusIndex) -> None:
    name, _ = make(uri, 2)
    target = f"{name}_new"
    await index.create_like(name, target, {"emb": 5})
    assert (await index.describe(target)).fields == (FieldInfo("emb", 5, "cosine", False),)
    await index.upsert(target, [Point(1, {"emb": rows(1, 5)[0]}, {"title": "x", "other": [1]})])
    assert (await index.fetch(target, [1]))[0].payload == {"title": "x", "other": [1]}
    assert await index.count(target) == 1
    with pytest.raises(KeyError, match="no dense vector field 'absent'"):
        await index.create_like(name, f"{name}_more", {"absent": 5})


async def test_sparse_vectors_are_kept_beside_dense_ones(embedded: str) -> None:
    client, name = MilvusClient(embedded), f"c{uuid.uuid4().hex}"
    schema = client.create_schema(auto_id=False)
    schema.add_field("pk", DataType.INT64, is_primary=True)
    schema.add_field("emb", DataType.FLOAT_VECTOR, dim=4)
    schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
    settings = client.prepare_index_params()
    settings.add_index("emb", index_type="FLAT", metric_type="L2")
    settings.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    client.create_collection(name, schema=schema, index_params=settings)
    index = MilvusIndex(lambda database: MilvusClient(embedded, db_name=database))
    info = await index.describe(name)
    assert (info.fields, info.sparse) == ((FieldInfo("emb", 4, "euclid", False),), ("words",))
    sparse = SparseVector(np.array([2, 9], np.uint32), np.array([0.5, 1.5], np.float32))
    await index.upsert(name, [Point(1, {"emb": rows(1, 4)[0]}, {}, {"words": sparse})])
    found = (await index.fetch(name, [1]))[0].sparse["words"]
    assert (found.indices.tolist(), found.values.tolist()) == ([2, 9], [0.5, 1.5])
    await index.close()


async def test_a_refusal_says_which_collection_and_why(uri: str, index: MilvusIndex) -> None:
    with pytest.raises(IndexRefusedError, match=r"collection 'absent': .*absent") as raised:
        await index.describe("absent")
    assert not raised.value.retryable


async def test_a_loaded_collection_is_healthy(index: MilvusIndex, uri: str) -> None:
    name, _ = make(uri)
    health = await index.health(name)
    assert (health.points, health.broken) == (60, None)


def test_waiting_rows_are_told_and_a_collection_that_is_not_loaded_is_broken() -> None:
    known: list[dict[str, Any]] = [
        {"field_name": "emb", "indexed_rows": 70, "pending_index_rows": 30},
        {"field_name": "tag"},
    ]
    assert judge_health(100, "Loaded", known) == IndexHealth(100, 70, "30 rows of 'emb' wait for their index", None)
    assert judge_health(100, "NotLoad", []) == IndexHealth(100, None, None, "its load state is NotLoad")
