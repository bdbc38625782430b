"""The current Milvus in a container: unmodified pymilvus, and REST v2, which no Milvus without containers speaks."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from pymilvus import DataType, MilvusClient

from crossfade.adapters.base import Adapter
from tests.proxy.milvus_serving import MilvusServing, start_milvus_serving
from tests.proxy.toy_adapters import NEW, OLD, save_toy, toy_vectors

IMAGE = os.environ.get("CROSSFADE_MILVUS_IMAGE", "milvusdb/milvus:v2.6.6")
SCRIPT = Path(__file__).parents[1] / "proxy" / "milvus_client_run.py"
SETTINGS = f"""
models: {{old: {{dim: {OLD}}}, new: {{dim: {NEW}}}}}
collections:
  docs: {{index_model: old, query_model: new, adapters: {{new: adapter}}}}
  halves: {{index_model: old, query_model: new, adapters: {{new: adapter}}}}
"""
STRONG: dict[str, Any] = {"consistency_level": "Strong"}
pytestmark = pytest.mark.docker


@dataclass(frozen=True)
class Scene:
    """Crossfade in front of a Milvus, with what it maps by."""

    serving: MilvusServing
    address: str
    direct: MilvusClient
    adapter: Adapter


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    docker = pytest.importorskip("docker")
    try:
        docker.from_env().ping()
    except docker.errors.DockerException as error:
        pytest.skip(f"no container engine runs here: {error}")
    from testcontainers.community.milvus import MilvusContainer

    with MilvusContainer(IMAGE) as running:
        yield f"127.0.0.1:{running.get_exposed_port(running.port)}"


@pytest.fixture(scope="module")
def scene(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("crossfade")
    adapter = save_toy(folder / "adapter")
    direct = MilvusClient(f"http://{address}")
    make(direct, "docs", DataType.FLOAT_VECTOR)
    make(direct, "halves", DataType.FLOAT16_VECTOR)
    with start_milvus_serving(folder, f'grpc: "{address}"', SETTINGS) as serving:
        yield Scene(serving, address, direct, adapter)


def make(client: MilvusClient, name: str, kind: DataType) -> None:
    schema = client.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("emb", kind, dim=OLD)
    index = client.prepare_index_params()
    index.add_index("emb", index_type="FLAT", metric_type="COSINE")
    client.create_collection(name, schema=schema, index_params=index)


def test_every_step_of_pymilvus_gives_what_it_gives_directly(scene: Scene) -> None:
    def run(uri: str) -> str:
        command = [sys.executable, str(SCRIPT), uri, "lite", "passed"]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout.splitlines()[-1]

    assert run(scene.serving.uri) == run(f"http://{scene.address}")


def test_rest_v2_takes_and_gives_new_model_vectors(scene: Scene) -> None:
    rows, uri = toy_vectors(21, 3, NEW), f"{scene.serving.uri}/v2/vectordb"
    told = httpx.post(f"{uri}/collections/describe", json={"collectionName": "docs"}).json()["data"]["fields"]
    assert {"key": "dim", "value": str(NEW)} in next(field for field in told if field["name"] == "emb")["params"]
    data = [{"id": at, "emb": row.tolist(), "numbers": row.tolist()} for at, row in enumerate(rows)]
    wrote = httpx.post(f"{uri}/entities/insert", json={"collectionName": "docs", "data": data}).json()
    assert wrote["code"] == 0, wrote
    stored = scene.direct.get("docs", ids=[0, 1, 2], output_fields=["emb"], **STRONG)
    found = np.array([row["emb"] for row in sorted(stored, key=lambda row: row["id"])])
    np.testing.assert_allclose(found, scene.adapter.document.apply(rows), rtol=0, atol=1e-6)
    asked = {"collectionName": "docs", "data": rows[1:2].tolist(), "annsField": "emb", "limit": 1}
    asked |= {"outputFields": ["emb", "numbers"], "consistencyLevel": "Strong"}
    hit = httpx.post(f"{uri}/entities/search", json=asked).json()["data"][0]
    assert hit["id"] == 1
    assert len(hit["emb"]) == NEW
    np.testing.assert_allclose(hit["numbers"], rows[1], rtol=1e-6)


def test_half_precision_is_stored_as_the_adapters_output_to_a_thousandth(scene: Scene) -> None:
    rows = toy_vectors(22, 4, NEW)
    client = MilvusClient(scene.serving.uri)
    client.insert("halves", [{"id": at, "emb": row.astype(np.float16)} for at, row in enumerate(rows)])
    stored = scene.direct.get("halves", ids=[0, 1, 2, 3], output_fields=["emb"], **STRONG)
    found = [np.frombuffer(row["emb"][0], np.float16) for row in sorted(stored, key=lambda row: row["id"])]
    expected = scene.adapter.document.apply(rows.astype(np.float16).astype(np.float32))
    np.testing.assert_allclose(np.array(found, np.float32), expected, rtol=1e-3, atol=1e-3)
