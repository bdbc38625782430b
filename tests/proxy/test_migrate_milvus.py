"""A migration of a Milvus collection from plan to complete, by `crossfade migrate`, while pymilvus reads and writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymilvus import MilvusClient

from crossfade.adapters.base import Float32
from tests.ports import free_ports
from tests.proxy.cli_runs import Run, make_run
from tests.proxy.encoding_function import DIM, encode_one
from tests.proxy.milvus_serving import MilvusServing, start_embedded, start_milvus_serving
from tests.proxy.serving import wait_until
from tests.proxy.toy_adapters import OLD, save_toy

COUNT = 120
SETTINGS = """
models:
  old: {dim: 16}
  new: {dim: 24, encoder: {python: "tests.proxy.encoding_function:encode"}}
collections:
  docs: {index_model: old, query_model: new, adapters: {new: adapter}, text: title, migrate: {to: new, field: vector}}
"""


@pytest.fixture
def milvus(tmp_path: Path) -> Iterator[tuple[MilvusServing, MilvusClient]]:
    save_toy(tmp_path / "adapter")
    (port,) = free_ports(1)
    with start_embedded(tmp_path / "data", port):
        direct = MilvusClient(f"http://127.0.0.1:{port}")
        direct.create_collection("docs", dimension=OLD, metric_type="COSINE", id_type="string", max_length=30)
        old = np.random.default_rng(0).normal(size=(COUNT, OLD)).tolist()
        rows = [{"id": f"no. {at}", "vector": old[at], "title": f"text {at}", "n": at} for at in range(COUNT)]
        direct.insert("docs", rows)
        with start_milvus_serving(tmp_path, f'grpc: "127.0.0.1:{port}"', SETTINGS) as serving:
            yield serving, direct


def asked(text: str) -> Float32:
    """What a client of the new model asks with; the text's own document is the nearest."""
    return encode_one(text, "passage")


def first(client: MilvusClient, text: str) -> Any:
    (hits,) = client.search("docs", [asked(text).tolist()], limit=1, output_fields=["title"])
    return hits[0]["entity"]["title"] if hits else None


def test_a_collection_is_migrated_switched_reversed_and_completed_under_writes(
    milvus: tuple[MilvusServing, MilvusClient], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    serving, direct = milvus
    monkeypatch.setenv("CROSSFADE_ADMIN", serving.admin)
    run: Run = make_run(capsys, monkeypatch)

    def migrate(*words: object) -> str:
        ran = run("migrate", *words)
        assert ran.code == 0, ran.err
        return ran.out

    client = MilvusClient(serving.uri)
    assert "docs -> docs__new" in migrate("plan", "docs")
    assert "SYNCED" in migrate("start", "docs", "--watch")
    client.upsert("docs", [{"id": "no. 3", "vector": asked("text changed").tolist(), "title": "text changed", "n": 3}])
    client.delete("docs", filter="n > 100 and n < 105")
    client.insert("docs", [{"id": "added", "vector": asked("text added").tolist(), "title": "text added", "n": -1}])
    assert "nothing found" in migrate("verify", "docs", "--watch")
    migrate("switch", "docs")
    for text in ("text 7", "text changed", "text added"):
        wait_until(lambda text=text: first(client, text) == text, 10, "the new index answers")  # type: ignore[misc]
    assert "SYNCED" in migrate("reverse", "docs")
    migrate("switch", "docs")
    client.delete("docs", ids=["no. 8"])
    assert "COMPLETED" in migrate("complete", "docs", "--watch")
    assert first(client, "text 9") == "text 9"
    assert first(client, "text 8") != "text 8"
    stored = direct.query("docs__new", filter="n >= -1", output_fields=["title", "n"], consistency_level="Strong")
    assert {row["n"] for row in stored} == {-1, *range(COUNT)} - {8, *range(101, 105)}
    assert {row["id"]: row["title"] for row in stored}["no. 3"] == "text changed"
    assert client.describe_collection("docs")["fields"][1]["params"]["dim"] == DIM
    assert json.loads(migrate("status", "docs", "--json"))["state"] == "COMPLETED"
    client.close()
