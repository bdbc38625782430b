"""The Milvus side of half_migrated: an embedded Milvus with both collections, searched exactly, and pymilvus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pymilvus import DataType, MilvusClient
from qdrant_client import QdrantClient

from crossfade.adapters.base import Float32
from tests.ports import free_ports
from tests.proxy.migrating import OLD, Migrating, first_view
from tests.proxy.milvus_serving import MilvusServing, start_embedded, start_milvus_serving

TARGET = "docs__new"
_WRITTEN, _ASKED = 1_000, 50  # rows and queries in one request


class MilvusSide:
    """See half_migrated.QdrantSide."""

    text = "row"

    @contextmanager
    def start(self, home: Path, settings: str, dims: tuple[int, int]) -> Iterator[Migrating]:
        """Both collections, empty, and Crossfade in front of them."""
        (port,) = free_ports(1)
        with start_embedded(home / "data", port):
            self._direct = MilvusClient(f"http://127.0.0.1:{port}")
            for name, dim in zip((OLD, TARGET), dims, strict=True):
                schema = MilvusClient.create_schema()
                schema.add_field("id", DataType.INT64, is_primary=True)
                schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
                schema.add_field("row", DataType.VARCHAR, max_length=20)
                index = self._direct.prepare_index_params()
                index.add_index("vector", index_type="FLAT", metric_type="COSINE")
                self._direct.create_collection(name, schema=schema, index_params=index)
            with start_milvus_serving(home, f'grpc: "127.0.0.1:{port}"', settings) as serving:
                yield Migrating(serving, QdrantClient(":memory:"), first_view(target=TARGET, field="vector"))

    def fill(self, migrating: Migrating, *, target: bool, vectors: Float32, rows: Sequence[int]) -> None:
        """Write rows of vectors under their row numbers."""
        for start in range(0, len(rows), _WRITTEN):
            part = rows[start : start + _WRITTEN]
            written = [{"id": int(row), "vector": vectors[row].tolist(), "row": str(row)} for row in part]
            self._direct.insert(TARGET if target else OLD, written)

    def ask(self, migrating: Migrating, queries: Float32, strategy: str, depth: int) -> NDArray[np.int64]:
        """The documents found (n, depth) through the proxy by a strategy; -1 where there are fewer."""
        migrating.move(strategy=strategy)  # pymilvus sends no headers
        assert isinstance(migrating.serving, MilvusServing)
        client = MilvusClient(migrating.serving.uri)
        found = np.full((len(queries), depth), -1, np.int64)
        for start in range(0, len(queries), _ASKED):
            part = queries[start : start + _ASKED].tolist()
            for at, hits in enumerate(client.search(OLD, part, limit=depth, timeout=120)):
                found[start + at, : len(hits)] = [hit["id"] for hit in hits]
        return found
