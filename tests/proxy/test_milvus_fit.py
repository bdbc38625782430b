"""`crossfade fit --from-collection` on Milvus: an embedded one that it opens itself, and one that runs already."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pymilvus import DataType, MilvusClient

from crossfade.adapters.base import Float32
from crossfade.adapters.store import load_adapter
from crossfade.backends.embedded.milvus import MilvusServer
from tests.proxy.cli_runs import Run, make_run
from tests.proxy.encoding_function import DIM, encode

OLD_DIM, COUNT = 8, 200
CONFIG = """
listen: {{milvus: "127.0.0.1:0"}}
upstreams: {{main: {{kind: milvus, {upstream}}}}}
models:
  old: {{dim: 8}}
  new: {{dim: 24, encoder: {{python: "tests.proxy.encoding_function:encode"}}}}
collections: {{docs: {{index_model: old, text: title, adapters: {{new: adapters/new}}}}}}
"""
TEXTS = [f"document {at}" for at in range(COUNT)]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    return make_run(capsys, monkeypatch)


def old_vectors() -> Float32:
    """What the old model made of the texts: the new vectors, turned and cut."""
    turn = np.random.default_rng(0).normal(size=(DIM, OLD_DIM))
    made: Float32 = (encode(TEXTS, "passage") @ turn).astype(np.float32)
    return made


def fill(uri: str) -> None:
    client = MilvusClient(uri)
    schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("emb", DataType.FLOAT_VECTOR, dim=OLD_DIM)
    settings = client.prepare_index_params()
    settings.add_index("emb", index_type="FLAT", metric_type="COSINE")
    client.create_collection("docs", schema=schema, index_params=settings)
    rows = [{"id": at, "emb": row.tolist(), "title": TEXTS[at]} for at, row in enumerate(old_vectors())]
    client.insert("docs", rows)
    client.close()


@pytest.mark.parametrize("embedded", [True, False])
def test_an_adapter_is_fitted_from_a_live_collection(run: Run, tmp_path: Path, embedded: bool) -> None:
    data, config = tmp_path / "data", tmp_path / "crossfade.yaml"
    words: tuple[object, ...] = ("fit", "--from-collection", config, "docs", "--model", "new", "--sample", 150)
    words += ("--field", "emb") if embedded else ()  # the only one need not be named
    with MilvusServer(data) as server:
        fill(f"http://127.0.0.1:{server.port}")
        if not embedded:
            config.write_text(CONFIG.format(upstream=f'grpc: "127.0.0.1:{server.port}"'))
            ran = run(*words, "--method", "linear")
    if embedded:  # its folder is free again
        config.write_text(CONFIG.format(upstream="embedded: ./data"))
        ran = run(*words, "--method", "linear")
    assert ran.code == 0, ran.err
    adapter = load_adapter(tmp_path / "adapters" / "new", source_model="new", target_model="old")
    assert adapter.card.pairs.count == 150
    mapped, old = adapter.document.apply(encode(TEXTS, "passage")), old_vectors()
    cosines = np.sum(mapped * old, axis=1) / np.linalg.norm(mapped, axis=1) / np.linalg.norm(old, axis=1)
    assert cosines.mean() > 0.9


def test_a_field_that_is_not_there_is_told_with_those_that_are(run: Run, tmp_path: Path) -> None:
    with MilvusServer(tmp_path / "data") as server:
        fill(f"http://127.0.0.1:{server.port}")
        config = tmp_path / "crossfade.yaml"
        config.write_text(CONFIG.format(upstream=f'grpc: "127.0.0.1:{server.port}"'))
        ran = run("fit", "--from-collection", config, "docs", "--model", "new", "--field", "title")
        config.write_text(config.read_text().replace("text: title", "fields: {emb: {query_model: old}}, text: title"))
        own = run("fit", "--from-collection", config, "docs", "--model", "new")
    assert (ran.code, own.code) == (1, 1)
    assert "has no dense vector 'title'; it has 'emb'; say --field NAME" in ran.err
    assert "has no dense vector ''; it has 'emb'; say --field NAME" in own.err  # emb has settings of its own
