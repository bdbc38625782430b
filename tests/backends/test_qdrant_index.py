"""QdrantIndex against the embedded Qdrant, over gRPC and over REST."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, models

from crossfade.backends.dialect import Float32
from crossfade.backends.embedded.qdrant.server import QdrantServer
from crossfade.backends.index import FieldInfo, IndexRefusedError, Point, SparseVector
from crossfade.backends.qdrant.index import QdrantIndex


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantServer]:
    with QdrantServer(tmp_path_factory.mktemp("qdrant")) as running:
        yield running


@pytest.fixture(params=["grpc", "rest"])
async def client(server: QdrantServer, request: pytest.FixtureRequest) -> AsyncIterator[AsyncQdrantClient]:
    connected = AsyncQdrantClient(
        host="127.0.0.1",
        port=server.rest_port,
        grpc_port=server.grpc_port,
        prefer_grpc=request.param == "grpc",
        check_compatibility=False,
    )
    yield connected
    await connected.close()


@pytest.fixture
def index(client: AsyncQdrantClient) -> QdrantIndex:
    return QdrantIndex(client)


def unit_rows(n: int, dim: int, seed: int = 0) -> Float32:
    rows = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    unit: Float32 = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


async def make_plain(client: AsyncQdrantClient, n: int = 50, dim: int = 8) -> tuple[str, Float32]:
    name = f"plain-{uuid.uuid4().hex}"
    await client.create_collection(name, models.VectorParams(size=dim, distance=models.Distance.COSINE))
    rows = unit_rows(n, dim)
    points = [
        models.PointStruct(id=at, vector=rows[at].tolist(), payload={"title": f"t{at}", "body": {"text": [f"b{at}"]}})
        for at in range(n)
    ]
    await client.upsert(name, points, wait=True)
    return name, rows


async def make_named(client: AsyncQdrantClient) -> str:
    name = f"named-{uuid.uuid4().hex}"
    await client.create_collection(
        name,
        {
            "text": models.VectorParams(size=3, distance=models.Distance.DOT),
            "tokens": models.VectorParams(
                size=2,
                distance=models.Distance.COSINE,
                multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
            ),
        },
        sparse_vectors_config={"words": models.SparseVectorParams()},
        hnsw_config=models.HnswConfigDiff(m=24),
        on_disk_payload=True,
    )
    await client.create_payload_index(name, "title", models.PayloadSchemaType.KEYWORD, wait=True)
    return name


async def test_a_collection_is_described_by_its_fields(client: AsyncQdrantClient, index: QdrantIndex) -> None:
    plain, _ = await make_plain(client)
    assert (await index.describe(plain)).fields == (FieldInfo("", 8, "cosine", False),)
    named = await index.describe(await make_named(client))
    assert named.field("text") == FieldInfo("text", 3, "dot", False)
    assert named.field("tokens") == FieldInfo("tokens", 2, "cosine", True)
    assert named.sparse == ("words",)
    with pytest.raises(KeyError, match=r"no dense vector field 'title'; it has \['text', 'tokens'\]"):
        named.field("title")


async def test_points_written_are_the_points_read(client: AsyncQdrantClient, index: QdrantIndex) -> None:
    name = await make_named(client)
    tokens = unit_rows(3, 2)
    words = SparseVector(np.array([3, 9], np.uint32), np.array([0.5, 1.5], np.float32))
    first, second = 12345678901234567890, "5c56c793-69f3-4fbf-87e6-c4bf54c28c26"
    written = [
        Point(first, {"text": np.array([1, 2, 3], np.float32), "tokens": tokens}, {"title": "é"}, {"words": words}),
        Point(second, {"text": np.array([4, 5, 6], np.float32)}),
    ]
    await index.upsert(name, written)
    missing = 77
    found = await index.fetch(name, [second.upper(), missing, first])
    assert [point.id for point in found] == [second, first]
    np.testing.assert_array_equal(found[0].vectors["text"], [4, 5, 6])
    np.testing.assert_allclose(found[1].vectors["tokens"], tokens, rtol=1e-6)
    np.testing.assert_array_equal(found[1].sparse["words"].indices, words.indices)
    np.testing.assert_array_equal(found[1].sparse["words"].values, words.values)
    assert found[1].payload == {"title": "é"}
    (only,) = await index.fetch(name, [first], ["text"], payload=False)
    assert only.vectors.keys() == {"text"}
    assert not only.sparse
    assert not only.payload


async def test_deleted_points_are_gone_and_unknown_ids_are_no_error(
    client: AsyncQdrantClient, index: QdrantIndex
) -> None:
    name, _ = await make_plain(client, n=5)
    await index.delete(name, [1, 3, 999])
    assert await index.count(name) == 3
    assert [point.id for point in await index.fetch(name, [0, 1, 2, 3, 4])] == [0, 2, 4]


async def test_ids_are_listed_page_by_page_without_a_gap(client: AsyncQdrantClient, index: QdrantIndex) -> None:
    name, _ = await make_plain(client, n=25)
    page = await index.list_ids(name, None, 10)
    ids = list(page.ids)
    while page.next is not None:
        page = await index.list_ids(name, page.next, 10)
        ids += page.ids
    assert ids == list(range(25))


async def test_a_sample_is_repeatable_and_every_point_is_equally_likely(
    client: AsyncQdrantClient, index: QdrantIndex
) -> None:
    name, _ = await make_plain(client, n=20)
    first = await index.sample_ids(name, 5, seed=1)
    assert len(set(first)) == 5
    assert first == await index.sample_ids(name, 5, seed=1)
    assert sorted(await index.sample_ids(name, 100, seed=1), key=int) == list(range(20))
    drawn = np.zeros(20)
    for seed in range(200):
        drawn[[int(one) for one in await index.sample_ids(name, 5, seed)]] += 1
    assert drawn.sum() == 1000
    assert drawn.min() >= 20
    assert drawn.max() <= 85  # 50 expected, standard deviation 6


async def test_texts_come_by_path_or_template(client: AsyncQdrantClient, index: QdrantIndex) -> None:
    name, _ = await make_plain(client, n=3)
    assert await index.fetch_texts(name, [2, 99, 0], "payload.title") == ["t2", None, "t0"]
    assert await index.fetch_texts(name, [1], "{title}\n{body.text}") == ["t1\nb1"]
    assert await index.fetch_texts(name, [1], "absent") == [None]


async def test_exact_search_of_many_rows_equals_the_products(client: AsyncQdrantClient, index: QdrantIndex) -> None:
    name, stored = await make_plain(client, n=300)
    rows = unit_rows(130, 8, seed=1)  # more than one batch
    hits = await index.search(name, "", rows, 5)
    products = rows @ stored.T
    best = np.argsort(-products, axis=1)[:, :5]
    assert [list(hit.ids) for hit in hits] == best.tolist()
    np.testing.assert_allclose([hit.scores for hit in hits], np.take_along_axis(products, best, 1), atol=1e-5)


async def test_a_collection_is_made_like_another_with_new_dims(client: AsyncQdrantClient, index: QdrantIndex) -> None:
    source = await make_named(client)
    target = f"{source}-new"
    await index.create_like(source, target, {"text": 7})
    made = await index.describe(target)
    assert made.field("text") == FieldInfo("text", 7, "dot", False)
    assert made.field("tokens") == FieldInfo("tokens", 2, "cosine", True)
    assert made.sparse == ("words",)
    old, new = await client.get_collection(source), await client.get_collection(target)
    assert new.config.hnsw_config.m == 24
    assert new.config.hnsw_config == old.config.hnsw_config
    assert new.config.params.on_disk_payload == old.config.params.on_disk_payload
    assert new.payload_schema["title"].data_type == old.payload_schema["title"].data_type
    assert await index.count(target) == 0
    with pytest.raises(KeyError, match="no dense vector field 'absent'"):
        await index.create_like(source, f"{source}-other", {"absent": 3})


async def test_a_refusal_names_the_collection_and_is_final(index: QdrantIndex) -> None:
    with pytest.raises(IndexRefusedError, match=r"^collection 'absent': ") as refused:
        await index.count("absent")
    assert not refused.value.retryable


@pytest.mark.parametrize("prefer_grpc", [True, False])
async def test_an_index_that_is_down_may_be_asked_again(prefer_grpc: bool) -> None:
    index = QdrantIndex(
        AsyncQdrantClient(
            host="127.0.0.1", port=9, grpc_port=9, prefer_grpc=prefer_grpc, check_compatibility=False, timeout=2
        )
    )
    with pytest.raises(IndexRefusedError) as refused:
        await index.count("docs")
    assert refused.value.retryable
    await index.close()


async def test_a_green_collection_is_healthy(client: AsyncQdrantClient, index: QdrantIndex) -> None:
    name, _ = await make_plain(client)
    health = await index.health(name)
    assert (health.points, health.building, health.broken) == (50, None, None)
    assert health.indexed is not None


async def test_yellow_is_building_and_red_or_an_optimizer_error_is_broken(
    client: AsyncQdrantClient, index: QdrantIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _ = await make_plain(client)
    info = await client.get_collection(name)

    async def answer(_: str) -> models.CollectionInfo:
        return info

    monkeypatch.setattr(client, "get_collection", answer)
    info.status = models.CollectionStatus.YELLOW
    assert "its status is yellow" in ((await index.health(name)).building or "")
    info.status = models.CollectionStatus.RED
    assert "its status is red" in ((await index.health(name)).broken or "")
    info.optimizer_status = models.OptimizersStatusOneOf1(error="no space left")
    assert (await index.health(name)).broken == "its optimizer says no space left"


async def test_points_copied_by_the_index_are_what_the_client_library_reads(
    client: AsyncQdrantClient, index: QdrantIndex
) -> None:
    name = await make_named(client)
    payload = {"title": "ü", "n": [1, -2.5, None, True, {"deep": {}}], "large": 2**53 + 1, "": "no key"}
    words = models.SparseVector(indices=[7, 3], values=[1.5, -1.0])
    points = [
        models.PointStruct(
            id=7, vector={"text": [1.0, 2.0, 3.0], "tokens": [[1.0, 0.0], [0.0, 1.0]], "words": words}, payload=payload
        ),
        models.PointStruct(id="AAAAAAAA-0000-4000-8000-000000000001", vector={}, payload={}),
        models.PointStruct(id=2**64 - 1, vector={"text": [0.0, 0.0, 0.0]}, payload={"title": []}),
    ]
    await client.upsert(name, points, wait=True)
    await index.create_like(name, f"{name}-copy", {"text": 3})
    ids = (await index.list_ids(name, None, 10)).ids
    await index.upsert(f"{name}-copy", await index.fetch(name, ids))
    before, _ = await client.scroll(name, with_payload=True, with_vectors=True)
    after, _ = await client.scroll(f"{name}-copy", with_payload=True, with_vectors=True)
    assert len(before) == 3
    assert [one.model_dump() for one in after] == [one.model_dump() for one in before]


async def test_a_payload_that_was_read_is_a_mapping_like_any_other(
    client: AsyncQdrantClient, index: QdrantIndex
) -> None:
    name, _ = await make_plain(client, n=2)
    first, second = await index.fetch(name, [0, 1])
    assert dict(first.payload) == {"title": "t0", "body": {"text": ["b0"]}}
    assert first.payload == (await index.fetch(name, [0]))[0].payload != second.payload
    assert "none" not in first.payload
    assert first.payload.get("none") is None
    with pytest.raises(KeyError):
        first.payload["none"]
    assert (await index.fetch(name, [0], payload=False))[0].payload == {}
