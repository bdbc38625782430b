"""MilvusIndex where Milvus is not like others; tests/conformance has what is the same for every index.

On the embedded Milvus, and on milvus-lite's C++ engine for the kinds of vectors that the embedded one does not store.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
from pymilvus import DataType, Function, FunctionType, MilvusClient

from crossfade.backends.dialect import Float32
from crossfade.backends.embedded.milvus import MilvusServer
from crossfade.backends.index import FieldInfo, IndexHealth, IndexRefusedError, Point, SparseVector
from crossfade.backends.milvus.index import MilvusIndex, judge_health

KINDS = {"float16": DataType.FLOAT16_VECTOR, "bfloat16": DataType.BFLOAT16_VECTOR}
SPARSE = SparseVector(np.array([2, 9], np.uint32), np.array([0.5, 1.5], np.float32))


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with MilvusServer(tmp_path_factory.mktemp("milvus") / "data") as running:
        yield f"http://127.0.0.1:{running.port}"


@pytest.fixture
def client(uri: str) -> Iterator[MilvusClient]:
    opened = MilvusClient(uri)
    yield opened
    opened.close()


@pytest.fixture
async def index(uri: str) -> AsyncIterator[MilvusIndex]:
    opened = MilvusIndex(lambda database: MilvusClient(uri, db_name=database))
    yield opened
    await opened.close()


def rows(n: int, dim: int = 8, seed: int = 0) -> Float32:
    made: Float32 = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return made


def begin(client: MilvusClient, **settings: Any) -> tuple[str, Any, Any]:
    """A name, a schema with a key and a float vector of 4 dimensions, and its index."""
    schema = client.create_schema(enable_dynamic_field=True, **settings)
    schema.add_field("pk", DataType.INT64, is_primary=True)
    schema.add_field("emb", DataType.FLOAT_VECTOR, dim=4)
    indexes = client.prepare_index_params()
    indexes.add_index("emb", index_type="HNSW", metric_type="L2", params={"M": 24, "efConstruction": 99})
    return f"c{uuid.uuid4().hex}", schema, indexes


async def test_sparse_vectors_are_kept_beside_dense_ones(client: MilvusClient, index: MilvusIndex) -> None:
    name, schema, indexes = begin(client)
    schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
    indexes.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    client.create_collection(name, schema=schema, index_params=indexes)
    info = await index.describe(name)
    assert (info.fields, info.sparse) == ((FieldInfo("emb", 4, "euclid", False),), ("words",))
    await index.upsert(name, [Point(1, {"emb": rows(1, 4)[0]}, {}, {"words": SPARSE})])
    found = (await index.fetch(name, [1]))[0].sparse["words"]
    assert (found.indices.tolist(), found.values.tolist()) == ([2, 9], [0.5, 1.5])


async def test_points_of_a_collection_that_gives_out_ids_keep_theirs_in_the_new_one(
    client: MilvusClient, index: MilvusIndex
) -> None:
    name, schema, indexes = begin(client, auto_id=True)
    client.create_collection(name, schema=schema, index_params=indexes)
    given = client.insert(name, [{"emb": row.tolist(), "n": at} for at, row in enumerate(rows(3, 4))])["ids"]
    await index.create_like(name, f"{name}_new", {"emb": 6})
    points = await index.fetch(name, given)
    await index.upsert(f"{name}_new", [Point(one.id, {"emb": rows(1, 6)[0]}, one.payload) for one in points])
    copied = await index.fetch(f"{name}_new", given)
    assert [(one.id, one.payload) for one in copied] == [(one, {"n": at}) for at, one in enumerate(given)]
    with pytest.raises(IndexRefusedError, match=r"Milvus gives out its ids \(autoID\)") as refused:
        await index.upsert(name, points)
    assert not refused.value.retryable
    assert await index.count(name) == 3


async def test_a_new_collection_has_the_settings_of_the_old_one(client: MilvusClient, index: MilvusIndex) -> None:
    name, schema, indexes = begin(client, description="what it is")
    schema.add_field("tenant", DataType.VARCHAR, max_length=20, is_partition_key=True)
    schema.add_field("note", DataType.VARCHAR, max_length=30, nullable=True)
    schema.add_field("kind", DataType.INT8, default_value=7)
    schema.add_field("tags", DataType.ARRAY, element_type=DataType.INT64, max_capacity=5)
    client.create_collection(
        name, schema=schema, index_params=indexes, num_partitions=5, consistency_level="Session",
        properties={"mmap.enabled": "true"},
    )  # fmt: skip
    await index.create_like(name, f"{name}_new", {"emb": 6})
    old, new = client.describe_collection(name), client.describe_collection(f"{name}_new")
    differs = {key for key in old if old[key] != new[key]}
    assert differs <= {"collection_name", "collection_id", "fields", "created_timestamp", "update_timestamp"}
    for before, after in zip(old["fields"], new["fields"], strict=True):
        assert after == ({**before, "params": {"dim": 6}} if before["name"] == "emb" else before)
    point = Point(
        1, {"emb": rows(1, 6)[0]}, {"tenant": "a", "note": None, "kind": 3, "tags": [1, 2], "free": {"x": []}}
    )
    await index.upsert(f"{name}_new", [point])
    (found,) = await index.fetch(f"{name}_new", [1])
    assert {**found.payload, "tags": list(found.payload["tags"])} == point.payload  # type: ignore[call-overload]  # a list


async def test_a_new_collection_has_the_indexes_of_the_old_one(real_milvus: str) -> None:
    client = MilvusClient(f"http://{real_milvus}")
    index = MilvusIndex(lambda database: MilvusClient(f"http://{real_milvus}"))
    name, schema, indexes = begin(client)
    schema.add_field("title", DataType.VARCHAR, max_length=20)
    indexes.add_index("title", index_type="Trie", index_name="by_title")
    client.create_collection(name, schema=schema, index_params=indexes, num_shards=2)
    await index.create_like(name, f"{name}_new", {"emb": 6})
    for one in ("emb", "by_title"):
        old, new = client.describe_index(name, one), client.describe_index(f"{name}_new", one)
        assert new == old
    vectors = client.describe_index(f"{name}_new", "emb")
    assert (vectors["index_type"], vectors["M"], vectors["efConstruction"]) == ("HNSW", "24", "99")
    assert client.describe_collection(f"{name}_new")["num_shards"] == 2
    for made in (name, f"{name}_new"):
        await index.drop(made)
    await index.close()


async def test_what_a_function_computes_is_left_to_it(client: MilvusClient, index: MilvusIndex) -> None:
    name, schema, indexes = begin(client)
    schema.add_field("text", DataType.VARCHAR, max_length=100, enable_analyzer=True)
    schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(Function("bm25", FunctionType.BM25, input_field_names=["text"], output_field_names=["words"]))
    indexes.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
    client.create_collection(name, schema=schema, index_params=indexes)
    client.insert(name, [{"pk": 1, "emb": [1, 2, 3, 4], "text": "a red house"}])
    await index.create_like(name, f"{name}_new", {"emb": 6})
    assert (await index.describe(f"{name}_new")).sparse == ()
    (point,) = await index.fetch(name, [1])
    assert (dict(point.sparse), point.payload) == ({}, {"text": "a red house"})
    await index.upsert(f"{name}_new", [Point(1, {"emb": rows(1, 6)[0]}, point.payload)])
    assert client.search(f"{name}_new", ["red"], anns_field="words", limit=1)[0][0].id == 1


async def test_partitions_of_its_own_are_not_lost_in_silence(client: MilvusClient, index: MilvusIndex) -> None:
    name, schema, indexes = begin(client)
    client.create_collection(name, schema=schema, index_params=indexes)
    client.create_partition(name, "summer")
    with pytest.raises(IndexRefusedError, match=r"cannot be made anew: it has partitions of its own \(summer\)"):
        await index.create_like(name, f"{name}_new", {"emb": 6})
    assert not await index.exists(f"{name}_new")


async def test_points_that_expire_are_not_copied_in_silence(client: MilvusClient, index: MilvusIndex) -> None:
    name, schema, indexes = begin(client)
    expiry = {"collection.ttl.seconds": "3600"}
    client.create_collection(name, schema=schema, index_params=indexes, properties=expiry)
    with pytest.raises(IndexRefusedError, match=r"its points expire \(collection.ttl.seconds is 3600\)"):
        await index.create_like(name, f"{name}_new", {"emb": 6})


@pytest.mark.parametrize("form", KINDS)
async def test_every_kind_of_vector_is_copied(cpp_milvus: str, form: str) -> None:
    client, name = MilvusClient(f"http://{cpp_milvus}"), f"c{uuid.uuid4().hex[:8]}"
    index = MilvusIndex(lambda database: MilvusClient(f"http://{cpp_milvus}"))
    schema = client.create_schema(auto_id=False)
    schema.add_field("pk", DataType.INT64, is_primary=True)
    schema.add_field("emb", KINDS[form], dim=4)
    schema.add_field("bits", DataType.BINARY_VECTOR, dim=16)
    schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
    indexes = client.prepare_index_params()
    indexes.add_index("emb", index_type="FLAT", metric_type="COSINE")
    indexes.add_index("bits", index_type="BIN_FLAT", metric_type="HAMMING")
    indexes.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    client.create_collection(name, schema=schema, index_params=indexes)
    made = rows(4, 4)
    points = [Point(at, {"emb": made[at]}, {"bits": bytes([at, 7])}, {"words": SPARSE}) for at in range(4)]
    await index.upsert(name, points)
    await index.create_like(name, f"{name}_new", {"emb": 6})
    assert (await index.describe(f"{name}_new")).fields == (FieldInfo("emb", 6, "cosine", False),)
    stored = await index.fetch(name, [0, 1, 2, 3])
    np.testing.assert_allclose([one.vectors["emb"] for one in stored], made, rtol=1e-2)
    wide = rows(4, 6, seed=1)
    new = [Point(one.id, {"emb": wide[at]}, one.payload, one.sparse) for at, one in enumerate(stored)]
    await index.upsert(f"{name}_new", new)
    copied = await index.fetch(f"{name}_new", [0, 1, 2, 3])
    assert [one.payload for one in copied] == [{"bits": bytes([at, 7])} for at in range(4)]
    assert [one.sparse["words"].values.tolist() for one in copied] == [[0.5, 1.5]] * 4
    hits = await index.search(f"{name}_new", "emb", wide, 1)
    assert [hit.ids for hit in hits] == [[0], [1], [2], [3]]
    assert (await index.list_ids(name, 1, 2)).next == 3
    await index.close()


async def test_a_refusal_says_which_collection_and_why(index: MilvusIndex) -> None:
    with pytest.raises(IndexRefusedError, match=r"collection 'absent': .*absent") as raised:
        await index.describe("absent")
    assert not raised.value.retryable


async def test_a_loaded_collection_is_healthy(client: MilvusClient, index: MilvusIndex) -> None:
    name, schema, indexes = begin(client)
    client.create_collection(name, schema=schema, index_params=indexes)
    client.insert(name, [{"pk": at, "emb": row.tolist()} for at, row in enumerate(rows(6, 4))])
    health = await index.health(name)
    assert (health.points, health.broken) == (6, None)


def test_waiting_rows_are_told_and_a_collection_that_is_not_loaded_is_broken() -> None:
    known: list[dict[str, Any]] = [
        {"field_name": "emb", "indexed_rows": 70, "pending_index_rows": 30},
        {"field_name": "tag"},
    ]
    assert judge_health(100, "Loaded", known) == IndexHealth(100, 70, "30 rows of 'emb' wait for their index", None)
    assert judge_health(100, "NotLoad", []) == IndexHealth(100, None, None, "its load state is NotLoad")
