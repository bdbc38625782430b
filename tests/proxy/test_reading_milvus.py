"""Reads of a Milvus collection in mid-migration: of all rows until they are switched, then of the target's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from pymilvus import MilvusClient
from qdrant_client import QdrantClient

from crossfade.adapters.base import Adapter
from crossfade.backends.dialect import Float32
from crossfade.proxy.migration.machine import State
from tests.ports import free_ports
from tests.proxy.migrating import OLD, Migrating, first_view, unit
from tests.proxy.milvus_serving import MilvusServing, start_embedded, start_milvus_serving
from tests.proxy.serving import wait_until
from tests.proxy.toy_adapters import save_toy

pytest.importorskip("milvus_lite")

COUNT, THERE = 60, "docs__new"
SETTINGS = """
models: {old: {dim: 16}, new: {dim: 24}}
collections: {docs: {index_model: old, query_model: new, adapters: {new: adapter}}}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MilvusServing, MilvusClient, Adapter, Float32]]:
    """Half of the points are in the target: those with even numbers."""
    folder = tmp_path_factory.mktemp("milvus-reading")
    adapter = save_toy(folder / "adapter")
    new = unit(np.random.default_rng(0).normal(size=(COUNT, 24)))
    old = unit(adapter.document.apply(new))
    (port,) = free_ports(1)
    with start_embedded(folder / "data", port):
        direct = MilvusClient(f"http://127.0.0.1:{port}")
        for name, rows, step in ((OLD, old, 1), (THERE, new, 2)):
            direct.create_collection(name, dimension=rows.shape[1], metric_type="COSINE")
            direct.insert(name, [{"id": at, "vector": rows[at].tolist()} for at in range(0, COUNT, step)])
        with start_milvus_serving(folder, f'grpc: "127.0.0.1:{port}"', SETTINGS) as serving:
            yield serving, direct, adapter, new


@pytest.fixture
def migrating(made: tuple[MilvusServing, MilvusClient, Adapter, Float32]) -> Migrating:
    migrating = Migrating(made[0], QdrantClient(":memory:"), first_view(target=THERE, field="vector"))
    migrating.move(migrated=0.5)
    return migrating


def count(client: MilvusClient) -> int:
    return int(client.query(OLD, filter="", output_fields=["count(*)"])[0]["count(*)"])


def found(client: MilvusClient, vector: Float32, limit: int = COUNT) -> list[Any]:
    return [hit["id"] for hit in client.search(OLD, [vector.tolist()], limit=limit)[0]]


def test_reads_find_every_row_until_they_are_switched_and_go_to_the_target_then(
    made: tuple[MilvusServing, MilvusClient, Adapter, Float32], migrating: Migrating
) -> None:
    serving, _, _, new = made
    client = MilvusClient(serving.uri)
    assert len(found(client, new[4])) == count(client) == COUNT
    migrating.move(state=State.SWITCHED, percent=100.0, migrated=1.0)
    assert len(found(client, new[4])) == count(client) == COUNT // 2
    assert found(client, new[4], 1) == [4]


def test_a_target_that_is_not_there_leaves_reads_to_the_old_collection(
    made: tuple[MilvusServing, MilvusClient, Adapter, Float32], migrating: Migrating
) -> None:
    serving, _, _, new = made
    migrating.move(state=State.SWITCHED, percent=100.0, target="nowhere")
    client = MilvusClient(serving.uri)
    assert len(found(client, new[4])) == count(client) == COUNT
    counted = 'crossfade_migration_fallbacks_total{collection="docs",reason="refused",strategy="native"}'
    wait_until(lambda: counted in serving.metrics(), 10, "fallbacks are counted")


def test_once_completed_the_name_stands_for_the_target(
    made: tuple[MilvusServing, MilvusClient, Adapter, Float32], migrating: Migrating
) -> None:
    serving, direct, _, new = made
    migrating.move(state=State.COMPLETED, percent=100.0, migrated=1.0)
    client = MilvusClient(serving.model_uri)  # what comes in here is of the new model
    client.insert(OLD, [{"id": 1000, "vector": new[1].tolist()}])
    assert direct.query(THERE, ids=[1000])
    assert not direct.query(OLD, ids=[1000])
    assert found(client, new[1], 1) == [1000]
    client.delete(OLD, ids=[1000])
    assert not direct.query(THERE, ids=[1000])
    assert count(client) == COUNT // 2
