"""The main job on real data: an old index (minilm-l6) asked with new-model (e5-small) queries through Crossfade."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient
from qdrant_client import models as m

from crossfade.adapters.base import Adapter, Card, Float32, PairsCard
from crossfade.adapters.dataset import read_dataset
from crossfade.adapters.evaluate import NAIVE, Evaluation, Judged, evaluate, load_judged
from crossfade.adapters.linear import fit_linear
from crossfade.adapters.metrics import ndcg_at
from crossfade.adapters.store import save_adapter
from crossfade.backends.embedded import QdrantServer
from tests.proxy.serving import Serving, start_serving

DATA = Path(os.environ.get("CROSSFADE_DATA", Path(__file__).parents[3] / "shared" / "data")) / "scifact"
PAIRS = 2500
SETTINGS = """
models: {minilm-l6: {dim: 384}, e5-small: {dim: 384}}
collections: {docs: {index_model: minilm-l6, query_model: e5-small, adapters: {e5-small: adapter}}}
"""


@dataclass(frozen=True)
class Served:
    """A running example with what is known of it offline."""

    serving: Serving
    direct: QdrantClient
    judged: Judged
    adapter: Adapter
    offline: Evaluation


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if not DATA.is_dir():
        pytest.skip(f"no evaluation data at {DATA}; set CROSSFADE_DATA to the folder of the collections")
    folder = tmp_path_factory.mktemp("scifact")
    judged = load_judged(read_dataset(DATA), "minilm-l6", "e5-small")
    adapter = fit(judged)
    save_adapter(adapter, folder / "adapter")
    with QdrantServer(folder / "data") as server:
        direct = QdrantClient(host="127.0.0.1", port=server.rest_port, grpc_port=server.grpc_port, prefer_grpc=True)
        fill(direct, judged.old_documents)
        upstream = f'grpc: "127.0.0.1:{server.grpc_port}", rest: "http://127.0.0.1:{server.rest_port}"'
        with start_serving(folder, upstream, SETTINGS) as serving:
            yield Served(serving, direct, judged, adapter, evaluate(judged, {"adapted": adapter}))


def fit(judged: Judged) -> Adapter:
    chosen = np.random.default_rng(0).permutation(len(judged.new_documents))[:PAIRS]
    new, old = judged.new_documents[chosen], judged.old_documents[chosen]
    forward, back = fit_linear(new, old, ridge=0.1), fit_linear(old, new, ridge=0.1)
    card = Card("e5-small", "minilm-l6", 384, 384, "ridge", PairsCard(PAIRS, "scifact"))
    return Adapter(card, forward, forward, back)


def fill(client: QdrantClient, vectors: Float32) -> None:
    client.create_collection(
        "docs",
        vectors_config=m.VectorParams(size=384, distance=m.Distance.COSINE),
        hnsw_config=m.HnswConfigDiff(m=0),
    )
    client.upload_collection("docs", vectors=vectors, ids=range(len(vectors)), batch_size=512, wait=True)


def measure(client: QdrantClient, judged: Judged, queries: Float32) -> float:
    """nDCG@10 of what a client finds."""
    found = []
    for start in range(0, len(queries), 100):
        asked = [m.QueryRequest(query=row.tolist(), limit=10) for row in queries[start : start + 100]]
        found += [[point.id for point in answer.points] for answer in client.query_batch_points("docs", asked)]
    return float(ndcg_at(np.array(found), judged.judgements).mean())


def test_the_quality_through_the_proxy_is_the_offline_one_and_naive_queries_find_nothing(served: Served) -> None:
    through = measure(served.serving.client(grpc=True), served.judged, served.judged.new_queries)
    naive = measure(served.direct, served.judged, served.judged.new_queries)
    assert through == pytest.approx(served.offline.row("adapted").ndcg10, abs=0.002)
    assert naive == pytest.approx(served.offline.row(NAIVE).ndcg10, abs=0.002)
    assert naive < 0.02
    assert through > 0.5 * served.offline.row("status quo").ndcg10


def test_rest_grpc_and_curl_find_what_the_mapped_query_finds_directly(served: Served, tmp_path: Path) -> None:
    for query in served.judged.new_queries[:20]:
        mapped = served.adapter.query.apply(query[None])[0]
        expected = served.direct.query_points("docs", mapped.tolist(), limit=10).points
        for client in (served.serving.client(grpc=True), served.serving.client(grpc=False)):
            found = client.query_points("docs", query.tolist(), limit=10).points
            assert [point.id for point in found] == [point.id for point in expected]
            assert [point.score for point in found] == pytest.approx([point.score for point in expected], abs=1e-5)
    body = tmp_path / "query.json"
    body.write_text(json.dumps({"query": query.tolist(), "limit": 10}))
    url = f"{served.serving.rest}/collections/docs/points/query"
    command = ["curl", "-sS", "-i", url, "-H", "content-type: application/json", "--data-binary", f"@{body}"]
    head, _, text = subprocess.run(command, capture_output=True, check=True).stdout.decode().partition("\r\n\r\n")
    assert [point["id"] for point in json.loads(text)["result"]["points"]] == [point.id for point in expected]
    assert "x-crossfade: adapted; model=e5-small; index=minilm-l6" in head


def test_a_client_that_still_uses_the_old_model_declares_it_and_is_served_natively(served: Served) -> None:
    queries = served.judged.old_queries
    for grpc in (True, False):
        client = served.serving.client(grpc=grpc, headers={"x-embedding-model": "minilm-l6"})
        for query in queries[:5]:
            found = client.query_points("docs", query.tolist()).points
            expected = served.direct.query_points("docs", query.tolist()).points
            assert [point.id for point in found] == [point.id for point in expected]
            assert [point.score for point in found] == pytest.approx([point.score for point in expected], abs=1e-6)


@pytest.mark.parametrize("grpc", [True, False])
def test_what_a_new_model_client_writes_it_reads_back_in_its_own_space(grpc: bool, served: Served) -> None:
    client = served.serving.client(grpc=grpc, headers={"x-embedding-model": "e5-small"})
    vector = served.judged.new_documents[7:8]
    point = 1_000_000 + grpc
    client.upsert("docs", [m.PointStruct(id=point, vector=vector[0].tolist(), payload={"a": 1})], wait=True)
    stored: Any = served.direct.retrieve("docs", [point], with_vectors=True)[0]
    np.testing.assert_allclose([stored.vector], served.adapter.document.apply(vector), rtol=0, atol=1e-6)
    read: Any = client.retrieve("docs", [point], with_vectors=True)[0]
    back = served.adapter.reverse.apply(np.array([stored.vector], np.float32))
    np.testing.assert_allclose([read.vector], back, rtol=0, atol=1e-6)
    served.direct.delete("docs", [point], wait=True)
