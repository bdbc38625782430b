"""A handful of scenarios end to end against a real Qdrant server in a container, and against the embedded one.

The same code runs on both, so that it is tried even where no container engine is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httpx
import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from crossfade.adapters.base import Adapter
from crossfade.backends.embedded import QdrantServer
from tests.proxy.serving import Serving, start_serving
from tests.proxy.toy_adapters import NEW, OLD, save_toy, toy_vectors

IMAGE = os.environ.get("CROSSFADE_QDRANT_IMAGE", "qdrant/qdrant:v1.17.1")
POINTS = 300
SETTINGS = f"""
models: {{old: {{dim: {OLD}}}, new: {{dim: {NEW}}}}}
collections: {{docs: {{index_model: old, query_model: new, adapters: {{new: adapter}}}}}}
"""


@dataclass(frozen=True)
class Scene:
    """Crossfade in front of a Qdrant, with what it maps by."""

    serving: Serving
    direct: QdrantClient
    adapter: Adapter


@pytest.fixture(scope="module", params=["embedded", pytest.param("image", marks=pytest.mark.docker)])
def ports(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """REST and gRPC ports of a Qdrant on this machine."""
    if request.param == "image":
        yield from run_image()
    else:
        with QdrantServer(tmp_path_factory.mktemp("qdrant")) as server:
            yield server.rest_port, server.grpc_port


def run_image() -> Iterator[tuple[int, int]]:
    docker = pytest.importorskip("docker")
    try:
        docker.from_env().ping()
    except docker.errors.DockerException as error:
        pytest.skip(f"no container engine runs here: {error}")
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import HttpWaitStrategy

    container = DockerContainer(IMAGE).with_exposed_ports(6333, 6334)
    with container.waiting_for(HttpWaitStrategy(6333, "/readyz")) as running:
        yield int(running.get_exposed_port(6333)), int(running.get_exposed_port(6334))


@pytest.fixture(scope="module")
def scene(ports: tuple[int, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    rest, grpc = ports
    folder = tmp_path_factory.mktemp("crossfade")
    adapter = save_toy(folder / "adapter")
    direct = QdrantClient(host="127.0.0.1", port=rest, grpc_port=grpc, prefer_grpc=True)
    fill(direct)
    upstream = f'grpc: "127.0.0.1:{grpc}", rest: "http://127.0.0.1:{rest}"'
    with start_serving(folder, upstream, SETTINGS) as serving:
        yield Scene(serving, direct, adapter)


def fill(client: QdrantClient) -> None:
    size = models.VectorParams(size=OLD, distance=models.Distance.COSINE)
    client.create_collection("docs", vectors_config=size)
    points = [
        models.PointStruct(id=at, vector=vector.tolist(), payload={"even": at % 2 == 0})
        for at, vector in enumerate(toy_vectors(2, POINTS, OLD))
    ]
    client.upsert("docs", points, wait=True)


def found(answer: models.QueryResponse) -> list[tuple[int, float]]:
    return [(int(point.id), round(point.score, 5)) for point in answer.points]


@pytest.mark.parametrize("over_grpc", [True, False], ids=["grpc", "rest"])
def test_a_new_model_query_is_answered_as_its_mapped_vector_is(scene: Scene, over_grpc: bool) -> None:
    query = toy_vectors(11, 1, NEW)
    mapped = scene.adapter.query.apply(query)[0].tolist()
    even = models.Filter(must=[models.FieldCondition(key="even", match=models.MatchValue(value=True))])
    client = scene.serving.client(grpc=over_grpc)
    answer = client.query_points("docs", query=query[0].tolist(), query_filter=even, limit=10)
    assert found(answer) == found(scene.direct.query_points("docs", query=mapped, query_filter=even, limit=10))
    assert len(answer.points) == 10


def test_an_old_model_client_that_says_so_is_served_beside_the_new_one(scene: Scene) -> None:
    query = toy_vectors(12, 1, OLD)[0].tolist()
    client = scene.serving.client(grpc=True, headers={"x-embedding-model": "old"})
    assert found(client.query_points("docs", query=query)) == found(scene.direct.query_points("docs", query=query))


def test_a_new_model_write_is_stored_in_the_old_space_and_found_by_its_own_vector(scene: Scene) -> None:
    vector = toy_vectors(13, 1, NEW)
    client = scene.serving.client(grpc=True, headers={"x-embedding-model": "new"})
    client.upsert("docs", [models.PointStruct(id=9000, vector=vector[0].tolist())], wait=True)
    stored = np.array(cast("list[float]", scene.direct.retrieve("docs", [9000], with_vectors=True)[0].vector))
    expected = scene.adapter.document.apply(vector)[0]
    assert np.allclose(stored, expected / np.linalg.norm(expected), atol=1e-5), "cosine collections store unit vectors"
    scene.direct.delete("docs", [9000], wait=True)


def test_what_carries_no_vector_is_answered_as_by_the_database(scene: Scene) -> None:
    client = scene.serving.client(grpc=True)
    assert client.count("docs") == scene.direct.count("docs")
    assert client.get_collection("docs").config == scene.direct.get_collection("docs").config
    assert client.scroll("docs", limit=20) == scene.direct.scroll("docs", limit=20)


def test_errors_are_the_databases_own(scene: Scene, ports: tuple[int, int]) -> None:
    body = {"query": [0.0], "limit": 1}
    through, direct = (
        httpx.post(f"http://127.0.0.1:{port}/collections/missing/points/query", json=body)
        for port in (scene.serving.rest_port, ports[0])
    )
    assert through.status_code == direct.status_code == 404
    assert through.json()["status"] == direct.json()["status"]


def test_a_vector_of_no_known_model_is_refused_in_qdrants_form(scene: Scene) -> None:
    url = f"{scene.serving.rest}/collections/docs/points/query"
    answer = httpx.post(url, json={"query": [0.5] * (NEW + 1), "limit": 1})
    assert answer.status_code == 400
    assert f"{NEW + 1} dimensions" in answer.json()["status"]["error"]


def test_the_folder_of_the_configuration_holds_what_was_put_there_and_the_state(scene: Scene) -> None:
    held = {path.name for path in Path(scene.serving.config).parent.iterdir()}
    assert held - {".crossfade"} == {"adapter", "crossfade.yaml", "serve.log"}
