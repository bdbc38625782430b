"""Milvus's REST through a running Crossfade, on the same port as gRPC.

v2 is held against a recording upstream that answers as Milvus's documentation says, since no server that can be
installed without containers speaks it. v1 is held against a real Milvus 2.3 too.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.responses import Response

from crossfade.adapters.base import Adapter
from tests.proxy.milvus_serving import MilvusServing, start_milvus_serving
from tests.proxy.recording import Recorders, RestCall
from tests.proxy.test_milvus_adapted import answer_describe
from tests.proxy.toy_adapters import NEW, OLD, save_toy

SETTINGS = """
models: {old: {dim: 16}, new: {dim: 24}}
collections:
  docs: {index_model: old, query_model: new, adapters: {new: adapters/new}}
  crossfade_rest: {index_model: old, query_model: new, adapters: {new: adapters/new}}
"""
ROWS = np.random.default_rng(4).normal(size=(3, NEW)).astype(np.float32)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("milvus-rest")


@pytest.fixture(scope="module")
def milvus_adapter(directory: Path) -> Adapter:
    return save_toy(directory / "adapters" / "new")


@pytest.fixture(scope="module")
def milvus(recorders: Recorders, milvus_adapter: Adapter, directory: Path) -> Iterator[MilvusServing]:
    upstream = f'grpc: "{recorders.grpc.address}", rest: "{recorders.rest.address}"'
    with start_milvus_serving(directory, upstream, SETTINGS) as serving:
        yield serving


@pytest.fixture
def described(recorded: Recorders) -> Recorders:
    recorded.grpc.answer = answer_describe
    return recorded


def post(milvus: MilvusServing, path: str, body: Any, **headers: str) -> httpx.Response:
    return httpx.post(f"{milvus.uri}{path}", json=body, headers=headers, timeout=60)


def test_a_search_of_the_new_model_reaches_milvus_as_the_adapters_output(
    milvus: MilvusServing, described: Recorders, milvus_adapter: Adapter
) -> None:
    body = {"collectionName": "docs", "data": ROWS.tolist(), "limit": 3, "filter": "id > 1.50", "é": [1, 2]}
    answer = post(milvus, "/v2/vectordb/entities/search", body)
    assert answer.headers["x-crossfade"] == "adapted; model=new; index=old"
    received = described.rest.last
    sent = json.loads(received.body)
    np.testing.assert_allclose(sent.pop("data"), milvus_adapter.query.apply(ROWS), rtol=0, atol=1e-6)
    assert sent == {key: value for key, value in body.items() if key != "data"}
    assert received.path == "/v2/vectordb/entities/search"


def test_rows_are_mapped_where_the_schema_says_vector_and_lists_of_numbers_elsewhere_stay(
    milvus: MilvusServing, described: Recorders, milvus_adapter: Adapter
) -> None:
    rows = [{"id": i, "dense": row.tolist(), "numbers": row.tolist()} for i, row in enumerate(ROWS)]
    for path in ("/v2/vectordb/entities/insert", "/v2/vectordb/entities/upsert", "/v1/vector/insert"):
        post(milvus, path, {"collectionName": "docs", "data": rows})
        sent = json.loads(described.rest.last.body)["data"]
        mapped = np.array([row.pop("dense") for row in sent])
        np.testing.assert_allclose(mapped, milvus_adapter.document.apply(ROWS), rtol=0, atol=1e-6)
        assert sent == [{"id": row["id"], "numbers": row["numbers"]} for row in rows]


def test_vectors_of_an_answer_come_back_in_the_space_of_the_client(
    milvus: MilvusServing, described: Recorders, milvus_adapter: Adapter
) -> None:
    assert milvus_adapter.reverse is not None
    stored = milvus_adapter.document.apply(ROWS)
    rows = [{"id": i, "dense": row.tolist(), "numbers": row.tolist()} for i, row in enumerate(stored)]
    described.rest.answer = lambda call: Response(json.dumps({"code": 0, "data": rows}), media_type="application/json")
    found = post(milvus, "/v2/vectordb/entities/get", {"collectionName": "docs", "id": [0, 1, 2]}).json()["data"]
    expected = milvus_adapter.reverse.apply(stored)
    np.testing.assert_allclose([row["dense"] for row in found], expected, rtol=0, atol=1e-6)
    assert [row["numbers"] for row in found] == [row["numbers"] for row in rows]


def test_a_wrong_dimension_is_refused_in_milvuss_own_form(milvus: MilvusServing, described: Recorders) -> None:
    answer = post(milvus, "/v2/vectordb/entities/search", {"collectionName": "docs", "data": [[1.0] * 7]})
    assert answer.status_code == 200
    assert answer.json()["code"] == 1100
    assert "a vector has 7 dimensions" in answer.json()["message"]
    assert described.rest.calls == []


def test_a_description_tells_the_dimension_of_the_clients_model(milvus: MilvusServing, described: Recorders) -> None:
    def describe(call: RestCall) -> Response:
        field = {"name": "dense", "type": "FloatVector", "params": [{"key": "dim", "value": str(OLD)}]}
        return Response(json.dumps({"code": 0, "data": {"fields": [field]}}), media_type="application/json")

    described.rest.answer = describe
    for headers, dim in (({}, NEW), ({"x-embedding-model": "old"}, OLD)):
        told = post(milvus, "/v2/vectordb/collections/describe", {"collectionName": "docs"}, **headers).json()
        assert told["data"]["fields"][0]["params"][0]["value"] == str(dim)


def test_the_schema_is_asked_for_in_the_name_of_the_client(milvus: MilvusServing, described: Recorders) -> None:
    headers = {"authorization": "Bearer root:Milvus", "x-client-id": "rest"}
    time.sleep(5.1)  # what was learned before is not fresh any more
    post(milvus, "/v2/vectordb/entities/query", {"collectionName": "docs", "filter": ""}, **headers)
    assert described.grpc.last.method.endswith("/DescribeCollection")
    assert described.grpc.last.values("authorization") == ["cm9vdDpNaWx2dXM="]


@pytest.mark.parametrize("path", ["/v2/vectordb/collections/list", "/v2/vectordb/entities/delete", "/unknown"])
def test_what_carries_no_vector_passes_byte_for_byte(milvus: MilvusServing, described: Recorders, path: str) -> None:
    body = b'{ "collectionName": "docs", "filter":"id in [1]"}'
    httpx.post(f"{milvus.uri}{path}", content=body, headers={"content-type": "application/json"})
    assert (described.rest.last.path, described.rest.last.body) == (path, body)


def test_rest_v1_of_a_real_milvus_takes_and_gives_new_model_vectors(
    tmp_path: Path, milvus_adapter: Adapter, directory: Path, real_milvus: str
) -> None:
    (tmp_path / "adapters").symlink_to(directory / "adapters")
    name = "crossfade_rest"
    with start_milvus_serving(tmp_path, f'grpc: "{real_milvus}"', SETTINGS) as serving:
        direct = httpx.Client(base_url=f"http://{real_milvus}/v1/vector", timeout=60)
        direct.post("/collections/drop", json={"collectionName": name})
        made = {"collectionName": name, "dimension": OLD, "metricType": "L2"}
        assert direct.post("/collections/create", json=made).json()["code"] == 200
        describe = f"{serving.uri}/v1/vector/collections/describe?collectionName={name}"
        told = httpx.get(describe, timeout=60).json()["data"]["fields"]
        assert [field["type"] for field in told] == ["Int64", f"FloatVector({NEW})"]
        rows = [{"vector": row.tolist(), "n": i, "numbers": [1, 2]} for i, row in enumerate(ROWS)]
        answer = post(serving, "/v1/vector/insert", {"collectionName": name, "data": rows})
        assert answer.json()["data"]["insertCount"] == len(rows), answer.text
        stored = direct.post(
            "/query", json={"collectionName": name, "filter": "n >= 0", "outputFields": ["vector", "n"]}
        ).json()["data"]
        kept = np.array([row["vector"] for row in sorted(stored, key=lambda row: row["n"])])
        np.testing.assert_allclose(kept, milvus_adapter.document.apply(ROWS), rtol=0, atol=1e-6)
        asked = {"collectionName": name, "vector": ROWS[1].tolist(), "limit": 1, "outputFields": ["n", "vector"]}
        hit = post(serving, "/v1/vector/search", asked).json()["data"][0]
        assert hit["n"] == 1
        assert len(hit["vector"]) == NEW
        direct.post("/collections/drop", json={"collectionName": name})
        direct.close()
