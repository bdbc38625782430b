"""The embedded Qdrant as clients see it: every call on both APIs, Qdrant's own errors, keys and health."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from qdrant_client import QdrantClient
from qdrant_client import grpc as pb
from qdrant_client import models as m
from qdrant_client.grpc import points_service_pb2_grpc, qdrant_pb2_grpc
from qdrant_client.http.exceptions import UnexpectedResponse

from crossfade.backends.embedded import QdrantServer
from tests.backends.embedded_qdrant_requests import CONFIG, INDEXES, Requests

stub_of: Any = points_service_pb2_grpc.PointsStub  # generated without types
health_of: Any = qdrant_pb2_grpc.QdrantStub
UUID = "550e8400-e29b-41d4-a716-446655440000"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantServer]:
    with QdrantServer(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture(params=["grpc", "rest"])
def client(request: pytest.FixtureRequest, server: QdrantServer) -> Iterator[QdrantClient]:
    connected = connect(server, prefer_grpc=request.param == "grpc")
    for collection in connected.get_collections().collections:
        connected.delete_collection(collection.name)
    yield connected
    connected.close()


def connect(server: QdrantServer, **options: Any) -> QdrantClient:
    return QdrantClient(
        host="127.0.0.1", port=server.rest_port, grpc_port=server.grpc_port, check_compatibility=False, **options
    )


def ask(server: QdrantServer, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """One plain HTTP request: status, and the body as JSON where it is JSON."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{server.rest_port}{path}", data, headers, method=method)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, decode(response.read())
    except urllib.error.HTTPError as error:
        return error.code, decode(error.read())


def decode(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode()


def failure(client: QdrantClient, call: str, *arguments: Any, **options: Any) -> tuple[Any, str]:
    """Status (gRPC code or HTTP status) and text of a call that must fail."""
    try:
        getattr(client, call)(*arguments, **options)
    except grpc.RpcError as error:
        return error.code(), error.details() or ""
    except UnexpectedResponse as error:
        return error.status_code, json.loads(error.content)["status"]["error"]
    raise AssertionError(f"{call} did not fail")


NOT_FOUND = (grpc.StatusCode.NOT_FOUND, 404)
INVALID = (grpc.StatusCode.INVALID_ARGUMENT, 400)
EXISTS = (grpc.StatusCode.ALREADY_EXISTS, 409)
UNIMPLEMENTED = (grpc.StatusCode.UNIMPLEMENTED, 501)


def simple(client: QdrantClient, name: str = "c", count: int = 6) -> None:
    client.create_collection(name, vectors_config=m.VectorParams(size=2, distance=m.Distance.DOT))
    points = [m.PointStruct(id=n, vector=[float(n), 1.0], payload={"n": n, "even": n % 2 == 0}) for n in range(count)]
    client.upsert(name, points)


def test_collections_are_made_listed_described_and_dropped(client: QdrantClient) -> None:
    assert client.create_collection("c", **CONFIG, metadata={"owner": "us"}) is True
    assert client.collection_exists("c")
    assert [collection.name for collection in client.get_collections().collections] == ["c"]
    info = client.get_collection("c")
    assert info.status == m.CollectionStatus.GREEN
    assert info.points_count == 0
    vectors = info.config.params.vectors
    assert isinstance(vectors, dict)
    assert {name: (params.size, params.distance) for name, params in vectors.items()} == {
        name: (params.size, params.distance) for name, params in CONFIG["vectors_config"].items()
    }
    assert vectors["multi"].multivector_config == CONFIG["vectors_config"]["multi"].multivector_config
    assert list(info.config.params.sparse_vectors or {}) == ["sparse"]
    assert info.config.metadata == {"owner": "us"}
    assert client.delete_collection("c") is True
    assert client.delete_collection("c") is False
    assert not client.collection_exists("c")


def test_every_setting_of_a_collection_is_told_back(client: QdrantClient) -> None:
    quantization = m.ScalarQuantization(
        scalar=m.ScalarQuantizationConfig(type=m.ScalarType.INT8, quantile=0.5, always_ram=True)
    )
    client.create_collection(
        "c",
        vectors_config={
            "a": m.VectorParams(
                size=4,
                distance=m.Distance.EUCLID,
                datatype=m.Datatype.FLOAT16,
                on_disk=True,
                hnsw_config=m.HnswConfigDiff(m=5),
            )
        },
        sparse_vectors_config={"s": m.SparseVectorParams(modifier=m.Modifier.IDF)},
        hnsw_config=m.HnswConfigDiff(m=0, ef_construct=77),
        optimizers_config=m.OptimizersConfigDiff(indexing_threshold=123),
        quantization_config=quantization,
        on_disk_payload=False,
        replication_factor=2,
    )
    config = client.get_collection("c").config
    vectors = config.params.vectors
    assert isinstance(vectors, dict)
    assert (vectors["a"].datatype, vectors["a"].on_disk) == (m.Datatype.FLOAT16, True)
    assert vectors["a"].hnsw_config is not None
    assert vectors["a"].hnsw_config.m == 5
    assert (config.hnsw_config.m, config.hnsw_config.ef_construct) == (0, 77)
    assert config.optimizer_config.indexing_threshold == 123
    assert config.quantization_config == quantization
    assert config.params.on_disk_payload is False
    assert config.params.sparse_vectors == {"s": m.SparseVectorParams(modifier=m.Modifier.IDF)}


def test_updates_of_a_collection_change_what_they_name(client: QdrantClient) -> None:
    client.create_collection("c", vectors_config={"a": m.VectorParams(size=4, distance=m.Distance.DOT)})
    binary = m.BinaryQuantization(binary=m.BinaryQuantizationConfig(always_ram=True))
    client.update_collection(
        "c",
        hnsw_config=m.HnswConfigDiff(m=8),
        optimizers_config=m.OptimizersConfigDiff(indexing_threshold=5),
        vectors_config={"a": m.VectorParamsDiff(hnsw_config=m.HnswConfigDiff(m=3))},
        quantization_config=binary,
    )
    config = client.get_collection("c").config
    vectors = config.params.vectors
    assert isinstance(vectors, dict)
    assert vectors["a"].hnsw_config is not None
    assert (config.hnsw_config.m, config.hnsw_config.ef_construct, vectors["a"].hnsw_config.m) == (8, 100, 3)
    assert config.quantization_config == binary
    client.update_collection("c", quantization_config=m.Disabled.DISABLED)
    assert client.get_collection("c").config.quantization_config is None
    unknown = {"b": m.VectorParamsDiff(on_disk=True)}
    code, text = failure(client, "update_collection", "c", vectors_config=unknown)
    assert code in INVALID
    assert "Not existing vector name error: b" in text


def test_named_vectors_are_added_and_dropped(client: QdrantClient) -> None:
    client.create_collection("c", vectors_config={"a": m.VectorParams(size=2, distance=m.Distance.DOT)})
    client.upsert("c", [m.PointStruct(id=1, vector={"a": [1.0, 2.0]})])
    dense = m.DenseVectorNameConfig(dense=m.DenseVectorConfig(size=3, distance=m.Distance.DOT))
    sparse = m.SparseVectorNameConfig(sparse=m.SparseVectorConfig(modifier=m.Modifier.IDF))
    client.create_vector_name("c", "b", dense)
    client.create_vector_name("c", "s", sparse)
    both: dict[str, Any] = {"b": [1.0, 2, 3], "s": m.SparseVector(indices=[1], values=[2.0])}
    client.update_vectors("c", [m.PointVectors(id=1, vector=both)])
    found = client.retrieve("c", [1], with_vectors=True)[0].vector
    assert isinstance(found, dict)
    assert set(found) == {"a", "b", "s"}
    client.delete_vector_name("c", "b")
    config = client.get_collection("c").config
    assert isinstance(config.params.vectors, dict)
    assert set(config.params.vectors) == {"a"}
    found = client.retrieve("c", [1], with_vectors=True)[0].vector
    assert isinstance(found, dict)
    assert set(found) == {"a", "s"}


def test_aliases_stand_for_collections(client: QdrantClient) -> None:
    simple(client)
    simple(client, "d", 1)
    create = m.CreateAliasOperation(create_alias=m.CreateAlias(collection_name="c", alias_name="x"))
    client.update_collection_aliases([create])
    assert client.count("x").count == 6
    assert client.get_collection_aliases("c").aliases == [m.AliasDescription(alias_name="x", collection_name="c")]
    rename = m.RenameAliasOperation(rename_alias=m.RenameAlias(old_alias_name="x", new_alias_name="y"))
    switch = m.CreateAliasOperation(create_alias=m.CreateAlias(collection_name="d", alias_name="y"))
    client.update_collection_aliases([rename, switch])
    assert client.count("y").count == 1
    client.upsert("y", [m.PointStruct(id=9, vector=[0.0, 0.0])])
    assert client.count("d").count == 2
    code, text = failure(client, "update_collection_aliases", [create, rename, rename])
    assert code in NOT_FOUND
    assert "Alias x does not exists!" in text
    assert [alias.alias_name for alias in client.get_aliases().aliases] == ["y"], "none of a failed list is applied"
    client.update_collection_aliases([m.DeleteAliasOperation(delete_alias=m.DeleteAlias(alias_name="y"))])
    assert client.get_aliases().aliases == []
    assert failure(client, "count", "y")[0] in NOT_FOUND


@pytest.mark.parametrize("kind", [*INDEXES.values(), "uuid"])
def test_payload_indexes_of_every_type(client: QdrantClient, kind: Any) -> None:
    simple(client)
    client.create_payload_index("c", "n", field_schema=kind)
    assert client.get_collection("c").payload_schema["n"].data_type == kind
    client.delete_payload_index("c", "n")
    assert client.get_collection("c").payload_schema == {}


def test_parameters_of_a_text_index_are_told_back(client: QdrantClient) -> None:
    simple(client)
    params = m.TextIndexParams(
        type=m.TextIndexType.TEXT,
        tokenizer=m.TokenizerType.WORD,
        min_token_len=2,
        lowercase=True,
        phrase_matching=True,
        stopwords=m.Language.ENGLISH,
    )
    client.create_payload_index("c", "text", field_schema=params)
    found = client.get_collection("c").payload_schema["text"].params
    assert isinstance(found, m.TextIndexParams)
    assert (found.tokenizer, found.min_token_len, found.lowercase, found.phrase_matching) == ("word", 2, True, True)
    keyword = m.KeywordIndexParams(type=m.KeywordIndexType.KEYWORD, is_tenant=True)
    client.create_payload_index("c", "tenant", field_schema=keyword)
    found_keyword = client.get_collection("c").payload_schema["tenant"].params
    assert isinstance(found_keyword, m.KeywordIndexParams)
    assert found_keyword.is_tenant is True


def test_random_writes_leave_the_same_points_as_in_local_mode(client: QdrantClient) -> None:
    requests = Requests(99, 60)
    oracle = QdrantClient(":memory:")
    points = requests.points()
    for each in (client, oracle):
        each.create_collection("c", **CONFIG)
        each.upsert("c", points)
    for _ in range(60):
        there = [point.id for point in oracle.scroll("c", limit=1000)[0]]  # others are refused by Qdrant alone
        call, arguments = random_write(requests, there)
        for each in (client, oracle):
            getattr(each, call)("c", **arguments)
    found, expected = (everything(each) for each in (client, oracle))
    assert found.keys() == expected.keys()
    for point, (payload, vectors) in found.items():
        assert payload == expected[point][0]
        assert vectors.keys() == expected[point][1].keys()
        for name in vectors:
            np.testing.assert_allclose(flat(vectors[name]), flat(expected[point][1][name]), atol=1e-5)


def everything(client: QdrantClient) -> dict[Any, Any]:
    points = client.scroll("c", limit=1000, with_vectors=True)[0]
    return {point.id: (point.payload or {}, point.vector) for point in points}


def flat(vector: Any) -> Any:
    if isinstance(vector, m.SparseVector):
        return np.asarray(sorted(zip(vector.indices, vector.values, strict=True)))
    return np.asarray(vector)


def random_write(requests: Requests, there: list[Any]) -> tuple[str, dict[str, Any]]:
    """A call of any kind with its arguments, by ids or by filter."""
    pick = requests.random
    some = pick.sample(there, 5)
    absent = pick.sample(requests.ids, 5)
    by: Any = some if pick.random() < 0.6 else m.Filter(must=[m.HasIdCondition(has_id=some), requests.condition(0)])
    points = [m.PointStruct(id=point, vector=requests.vectors(), payload=requests.payload()) for point in absent]
    batch = m.Batch(
        ids=some,
        vectors={"cos": [requests.dense("cos") for _ in some], "sparse": [requests.sparse() for _ in some]},
        payloads=[requests.payload() for _ in some],
    )
    vectors = [m.PointVectors(id=point, vector={"dot": requests.dense("dot")}) for point in some]
    payload = {"size": pick.randint(0, 9), "new": {"deep": [1, 2.5, None]}}
    known = [m.PointStruct(id=some[0], vector=requests.vectors(), payload={})]
    operations: list[Any] = [
        m.UpsertOperation(upsert=m.PointsList(points=known)),
        m.SetPayloadOperation(set_payload=m.SetPayload(payload=payload, points=some)),
        m.UpdateVectorsOperation(update_vectors=m.UpdateVectors(points=vectors)),
        m.DeletePayloadOperation(delete_payload=m.DeletePayload(keys=["color"], points=some)),
    ]
    calls: list[tuple[str, dict[str, Any]]] = [
        ("upsert", {"points": points}),
        ("upsert", {"points": batch}),
        ("set_payload", {"payload": payload, "points": by}),
        ("set_payload", {"payload": {"x": 1}, "points": by, "key": "place"}),
        ("overwrite_payload", {"payload": payload, "points": by}),
        ("delete_payload", {"keys": ["color", "new.deep"], "points": by}),
        ("clear_payload", {"points_selector": by}),
        ("delete_vectors", {"vectors": ["man", "multi"], "points": by}),
        ("delete", {"points_selector": [some[0]]}),
        ("upsert", {"points": known}),
        ("batch_update_points", {"update_operations": operations}),
    ]
    return pick.choice(calls)


def test_conditional_upserts(client: QdrantClient) -> None:
    simple(client)
    fresh = [m.PointStruct(id=n, vector=[9.0, 9.0], payload={"v": 2}) for n in (0, 100)]
    client.upsert("c", fresh, update_mode=m.UpdateMode.INSERT_ONLY)
    assert [point.payload for point in client.retrieve("c", [0, 100])] == [{"n": 0, "even": True}, {"v": 2}]
    client.upsert("c", [m.PointStruct(id=200, vector=[1.0, 1.0])], update_mode=m.UpdateMode.UPDATE_ONLY)
    assert client.retrieve("c", [200]) == []
    odd = m.Filter(must=[m.FieldCondition(key="even", match=m.MatchValue(value=False))])
    client.upsert("c", [m.PointStruct(id=n, vector=[0.0, 0.0], payload={}) for n in (1, 2)], update_filter=odd)
    assert [bool(point.payload) for point in client.retrieve("c", [1, 2])] == [False, True]


def test_ids_of_both_kinds_page_through_a_scroll(client: QdrantClient) -> None:
    simple(client)
    client.upsert("c", [m.PointStruct(id=UUID, vector=[0.0, 0.0]), m.PointStruct(id=2**64 - 1, vector=[0.0, 0.0])])
    seen: list[Any] = []
    offset: Any = None
    while True:
        page, offset = client.scroll("c", limit=3, offset=offset)
        seen += [point.id for point in page]
        if offset is None:
            break
    assert sorted(map(str, seen)) == sorted(map(str, [*range(6), UUID, 2**64 - 1]))


def test_payload_values_come_back_as_they_went_in(client: QdrantClient) -> None:
    simple(client, count=0)
    payload = {"i": -3, "f": 1.0, "s": "é\u0000", "b": False, "z": None, "l": [1, [2.5, {}], []], "o": {"a.b": {"": 1}}}
    client.upsert("c", [m.PointStruct(id=1, vector=[1.0, 1.0], payload=payload)])
    found = client.retrieve("c", [1])[0].payload
    assert found == payload
    assert found is not None
    assert isinstance(found["f"], float)
    assert found["b"] is False


def test_errors_are_qdrants_own(client: QdrantClient) -> None:
    simple(client)
    cases: list[tuple[tuple[Any, int], str, tuple[str, tuple[Any, ...], dict[str, Any]]]] = [
        (NOT_FOUND, "Not found: Collection `no` doesn't exist!", ("query_points", ("no",), {"query": [1, 2]})),
        (NOT_FOUND, "Not found: Collection `no` doesn't exist!", ("get_collection", ("no",), {})),
        (
            INVALID,
            "Wrong input: Vector dimension error: expected dim: 2, got 3",
            ("query_points", ("c",), {"query": [1, 2, 3]}),
        ),
        (
            INVALID,
            "Wrong input: Vector dimension error: expected dim: 2, got 1",
            ("upsert", ("c", [m.PointStruct(id=1, vector=[1.0])]), {}),
        ),
        (
            INVALID,
            "Wrong input: Not existing vector name error: v",
            ("query_points", ("c",), {"query": [1, 2], "using": "v"}),
        ),
        (NOT_FOUND, "Not found: No point with id 77 found", ("query_points", ("c",), {"query": 77})),
        (
            INVALID,
            "Bad request: No range index for `order_by` key: `n`.",
            ("scroll", ("c",), {"order_by": "n"}),
        ),
        (INVALID, "Unable to parse UUID", ("retrieve", ("c", ["nonsense"]), {})),
        (
            INVALID,
            "Bad request: A query is needed to merge the prefetches.",
            ("query_points", ("c",), {"prefetch": m.Prefetch(query=[1.0, 2.0])}),
        ),
        (
            (grpc.StatusCode.INVALID_ARGUMENT, 422),
            "limit: value 0 invalid, must be 1 or larger",
            ("query_points", ("c",), {"query": [1, 2], "limit": 0}),
        ),
        (NOT_FOUND, "Not found: No point with id 77 found", ("set_payload", ("c", {"a": 1}), {"points": [77]})),
        (
            UNIMPLEMENTED,
            "Not supported by the embedded Qdrant: snapshots",
            ("create_snapshot", ("c",), {}),
        ),
        (
            (grpc.StatusCode.INVALID_ARGUMENT, 422),
            "size: value 0 invalid, must be from 1 to 65536",
            ("create_collection", ("e", m.VectorParams(size=0, distance=m.Distance.DOT)), {}),
        ),
        (
            (grpc.StatusCode.INVALID_ARGUMENT, 422),
            "collection name cannot contain '*' char",
            ("create_collection", ("e*", m.VectorParams(size=1, distance=m.Distance.DOT)), {}),
        ),
    ]
    for codes, text, (call, arguments, options) in cases:
        code, found = failure(client, call, *arguments, **options)
        assert code in codes, (call, code, found)
        assert text in found
    code, text = failure(client, "create_collection", "c", m.VectorParams(size=1, distance=m.Distance.DOT))
    assert code in EXISTS
    assert text == "Wrong input: Collection `c` already exists!"


def test_inference_is_refused_and_not_guessed(client: QdrantClient, server: QdrantServer) -> None:
    simple(client)
    status, body = ask(server, "POST", "/collections/c/points/query", {"query": {"text": "hello", "model": "any"}})
    assert status == 501
    assert "inference (document given instead of a vector)" in body["status"]["error"]


def test_bodies_that_are_not_json_or_not_the_right_shape_are_named(server: QdrantServer, client: QdrantClient) -> None:
    simple(client)
    path = "/collections/c/points"
    status, body = ask(server, "PUT", path, b"nonsense")
    assert status == 400
    assert body["status"]["error"].startswith("Format error in JSON body: Invalid JSON")
    assert set(body) == {"status", "time"}
    status, body = ask(server, "PUT", path, {"points": [{"id": 1, "vector": "abc"}]})
    assert status == 400
    assert "points.0.vector" in body["status"]["error"]
    status, body = ask(server, "PUT", path, {"batch": {"ids": [1, 2], "vectors": [[1, 2]]}})
    assert status == 400
    assert "Format error in JSON body" in body["status"]["error"]
    status, body = ask(server, "GET", "/collections/c/points/100")
    assert (status, body["status"]["error"]) == (404, "Not found: Point with id 100 does not exists!")
    status, _ = ask(server, "GET", "/no/such/path")
    assert status == 404


def test_plain_http_answers_have_qdrants_shape(server: QdrantServer, client: QdrantClient) -> None:
    simple(client)
    status, body = ask(server, "PUT", "/collections/c/points?wait=true", {"points": [{"id": 1, "vector": [0.1, 0.2]}]})
    assert (status, body["status"], body["result"]["status"]) == (200, "ok", "completed")
    status, body = ask(server, "PUT", "/collections/c/points", {"points": [{"id": 1, "vector": [0.1, 0.2]}]})
    assert body["result"]["status"] == "acknowledged"
    status, body = ask(server, "POST", "/collections/c/points", {"ids": [1], "with_vector": True})
    assert body["result"] == [{"id": 1, "payload": {}, "vector": [0.1, 0.2]}], "single precision, shortest digits"
    status, body = ask(server, "POST", "/collections/c/points/query", {"query": [1, 1], "limit": 1})
    assert body["result"] == {"points": [{"id": 5, "version": 0, "score": 6.0}]}
    status, body = ask(server, "POST", "/collections/c/points/count", {})
    assert body["result"] == {"count": 6}
    assert ask(server, "GET", "/collections/c/cluster")[1]["result"]["local_shards"][0]["state"] == "Active"


LEGACY = [
    ("search", {"vector": [1, 1], "limit": 2, "with_payload": True}, {"query": [1, 1], "limit": 2}),
    (
        "recommend",
        {"positive": [1], "negative": [2, [0.0, 1.0]], "limit": 3, "with_payload": True},
        {"query": {"recommend": {"positive": [1], "negative": [2, [0.0, 1.0]]}}, "limit": 3},
    ),
    (
        "recommend",
        {"positive": [1], "strategy": "best_score", "limit": 3, "with_payload": True},
        {"query": {"recommend": {"positive": [1], "strategy": "best_score"}}, "limit": 3},
    ),
    (
        "discover",
        {"target": [1, 0], "context": [{"positive": 1, "negative": 2}], "limit": 3, "with_payload": True},
        {"query": {"discover": {"target": [1, 0], "context": [{"positive": 1, "negative": 2}]}}, "limit": 3},
    ),
    (
        "discover",
        {"context": [{"positive": 1, "negative": 2}], "limit": 3, "with_payload": True},
        {"query": {"context": [{"positive": 1, "negative": 2}]}, "limit": 3},
    ),
]


@pytest.mark.parametrize(("name", "body", "query"), LEGACY)
def test_deprecated_rest_searches_answer_as_the_query_they_stand_for(
    server: QdrantServer, client: QdrantClient, name: str, body: dict[str, Any], query: dict[str, Any]
) -> None:
    simple(client)
    path = "/collections/c/points"
    expected = ask(server, "POST", f"{path}/query", {**query, "with_payload": True})[1]["result"]["points"]
    assert expected
    assert ask(server, "POST", f"{path}/{name}", body)[1]["result"] == expected
    batch = ask(server, "POST", f"{path}/{name}/batch", {"searches": [body, body]})[1]["result"]
    assert batch == [expected, expected]
    if name != "discover":
        grouped = {**body, "group_by": "even", "group_size": 2}
        assert ask(server, "POST", f"{path}/{name}/groups", grouped)[1]["result"] == {"groups": []}, "flags are no keys"
        groups = ask(server, "POST", f"{path}/{name}/groups", {**body, "group_by": "n", "group_size": 2})[1]["result"]
        assert [group["id"] for group in groups["groups"]] == [point["payload"]["n"] for point in expected]


def test_deprecated_grpc_searches_answer_as_the_query_they_stand_for(server: QdrantServer) -> None:
    client = connect(server)
    client.delete_collection("c")
    simple(client)
    everything_asked = pb.WithPayloadSelector(enable=True)
    one, two = pb.PointId(num=1), pb.PointId(num=2)
    example = pb.ContextExamplePair(positive=pb.VectorExample(id=one), negative=pb.VectorExample(id=two))
    target = pb.TargetVector(single=pb.VectorExample(vector=pb.Vector(data=[1.0, 0.0])))
    pair = pb.ContextInputPair(positive=pb.VectorInput(id=one), negative=pb.VectorInput(id=two))
    context = pb.ContextInput(pairs=[pair])
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        stub = stub_of(channel)

        def query(query: pb.Query) -> list[pb.ScoredPoint]:
            return list(stub.Query(pb.QueryPoints(collection_name="c", query=query, limit=3)).result)

        near = pb.VectorInput(dense=pb.DenseVector(data=[1, 1]))
        search = pb.SearchPoints(collection_name="c", vector=[1, 1], limit=3)
        assert list(stub.Search(search).result) == query(pb.Query(nearest=near))
        assert stub.Search(pb.SearchPoints(collection_name="c", vector=[1, 1], limit=1, with_payload=everything_asked))
        recommend = pb.RecommendPoints(collection_name="c", positive=[one], negative=[two], limit=3)
        examples = pb.RecommendInput(positive=[pb.VectorInput(id=one)], negative=[pb.VectorInput(id=two)])
        assert list(stub.Recommend(recommend).result) == query(pb.Query(recommend=examples))
        discover = pb.DiscoverPoints(collection_name="c", target=target, context=[example], limit=3)
        toward = pb.VectorInput(dense=pb.DenseVector(data=[1, 0]))
        wanted = query(pb.Query(discover=pb.DiscoverInput(target=toward, context=context)))
        assert list(stub.Discover(discover).result) == wanted
        batch = pb.SearchBatchPoints(collection_name="c", search_points=[search, search])
        assert [list(each.result) for each in stub.SearchBatch(batch).result] == [query(pb.Query(nearest=near))] * 2
        groups = pb.SearchPointGroups(collection_name="c", vector=[1.0, 1.0], limit=2, group_by="n", group_size=1)
        assert [group.id.unsigned_value for group in stub.SearchGroups(groups).result.groups] == [5, 4]


def test_a_distance_matrix_holds_the_nearest_of_the_sample(client: QdrantClient) -> None:
    simple(client)
    pairs = client.search_matrix_pairs("c", sample=6, limit=2).pairs
    assert len(pairs) == 12
    vectors = {n: np.array([n, 1]) for n in range(6)}
    for pair in pairs:
        assert pair.score == pytest.approx(float(vectors[pair.a] @ vectors[pair.b]))  # type: ignore[index]
        assert pair.a != pair.b
    offsets = client.search_matrix_offsets("c", sample=6, limit=2)
    assert len(offsets.offsets_row) == len(offsets.offsets_col) == len(offsets.scores) == 12
    assert sorted(map(str, offsets.ids)) == list("012345")
    first = (offsets.ids[offsets.offsets_row[0]], offsets.ids[offsets.offsets_col[0]])
    assert offsets.scores[0] == pytest.approx(float(vectors[first[0]] @ vectors[first[1]]))  # type: ignore[index]


def test_health_and_version_are_told(server: QdrantServer) -> None:
    status, body = ask(server, "GET", "/")
    assert (status, body["title"]) == (200, "qdrant - vector search engine")
    assert [ask(server, "GET", path)[0] for path in ("/healthz", "/livez", "/readyz")] == [200, 200, 200]
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        reply = health_of(channel).HealthCheck(pb.HealthCheckRequest())
        assert (reply.title, reply.version) == (body["title"], body["version"])
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check", bytes, bytes)
        assert check(b"") == b"\x08\x01", "status SERVING"


def test_an_api_key_is_asked_for_everywhere_but_health(tmp_path: Path) -> None:
    with QdrantServer(tmp_path, api_key="secret") as server:
        assert ask(server, "GET", "/collections") == (401, "Must provide an API key or an Authorization bearer token")
        assert ask(server, "GET", "/collections", None, **{"api-key": "wrong"}) == (401, "Invalid API key or JWT")
        assert ask(server, "GET", "/collections", None, **{"api-key": "secret"})[0] == 200
        assert ask(server, "GET", "/collections", None, Authorization="Bearer secret")[0] == 200
        assert ask(server, "GET", "/healthz")[0] == 200
        for over_grpc in (True, False):
            client = connect(server, prefer_grpc=over_grpc, api_key="secret", https=False)
            assert client.get_collections().collections == []
        with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            stub = stub_of(channel)
            for metadata in ((), (("api-key", "wrong"),)):
                with pytest.raises(grpc.RpcError) as caught:
                    stub.Count(pb.CountPoints(collection_name="c"), metadata=metadata)
                assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
            assert health_of(channel).HealthCheck(pb.HealthCheckRequest()).version
