"""Both databases as their users meet them: the same few things done with each one's own unmodified client."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException
from qdrant_client import QdrantClient
from qdrant_client import models as m

from crossfade.adapters.base import Float32
from crossfade.backends.embedded import QdrantServer
from tests.ports import free_ports
from tests.proxy.milvus_serving import start_embedded, start_milvus_serving
from tests.proxy.serving import Serving, start_serving

KINDS = ("qdrant", "milvus")
FIELD = "emb"


@dataclass(frozen=True)
class Found:
    """The answer to one query, best first."""

    ids: list[int]
    scores: list[float]


class Client(Protocol):
    """What a user does, with the cosine as the score; `model` is what the user declares, None nothing."""

    def create(self, name: str, dim: int) -> None: ...
    def write(self, name: str, ids: Sequence[int], rows: Float32, model: str | None = None) -> None: ...
    def search(
        self, name: str, rows: Float32, k: int, model: str | None = None, above: float | None = None
    ) -> list[Found]: ...
    def read(self, name: str, ids: Sequence[int], model: str | None = None) -> Float32: ...
    def refusal(self, error: Exception) -> str: ...


@dataclass(frozen=True)
class QdrantUser:
    """qdrant-client over gRPC; a model is declared by metadata."""

    port: int
    rest_port: int

    def _client(self, model: str | None) -> QdrantClient:
        return QdrantClient(
            host="127.0.0.1",
            grpc_port=self.port,
            port=self.rest_port,
            prefer_grpc=True,
            check_compatibility=False,
            headers={"x-embedding-model": model} if model else None,
        )

    def create(self, name: str, dim: int) -> None:
        vectors = {FIELD: m.VectorParams(size=dim, distance=m.Distance.COSINE)}
        self._client(None).create_collection(name, vectors_config=vectors, hnsw_config=m.HnswConfigDiff(m=0))

    def write(self, name: str, ids: Sequence[int], rows: Float32, model: str | None = None) -> None:
        client = self._client(model)
        for at in range(0, len(ids), 500):
            part = zip(ids[at : at + 500], rows[at : at + 500], strict=True)
            points = [m.PointStruct(id=point, vector={FIELD: row.tolist()}) for point, row in part]
            client.upsert(name, points, wait=True)

    def search(
        self, name: str, rows: Float32, k: int, model: str | None = None, above: float | None = None
    ) -> list[Found]:
        client = self._client(model)
        answers = [
            client.query_points(name, row.tolist(), using=FIELD, limit=k, score_threshold=above).points for row in rows
        ]
        return [Found([int(hit.id) for hit in hits], [hit.score for hit in hits]) for hits in answers]

    def read(self, name: str, ids: Sequence[int], model: str | None = None) -> Float32:
        found: Any = {point.id: point for point in self._client(model).retrieve(name, list(ids), with_vectors=True)}
        return np.array([found[point].vector[FIELD] for point in ids], np.float32)

    def refusal(self, error: Exception) -> str:
        return str(error)


@dataclass(frozen=True)
class MilvusUser:
    """pymilvus; a model is declared by the search parameter, and by the request id elsewhere."""

    uri: str

    def create(self, name: str, dim: int) -> None:
        client = MilvusClient(self.uri)
        schema = client.create_schema(auto_id=False)
        schema.add_field("id", DataType.INT64, is_primary=True)
        schema.add_field(FIELD, DataType.FLOAT_VECTOR, dim=dim)
        index = client.prepare_index_params()
        index.add_index(FIELD, index_type="FLAT", metric_type="COSINE")
        client.create_collection(name, schema=schema, index_params=index)

    def write(self, name: str, ids: Sequence[int], rows: Float32, model: str | None = None) -> None:
        client = MilvusClient(self.uri)
        for at in range(0, len(ids), 500):
            part = zip(ids[at : at + 500], rows[at : at + 500], strict=True)
            data = [{"id": int(point), FIELD: row.tolist()} for point, row in part]
            client.upsert(name, data, **self._declared(model))

    def _declared(self, model: str | None) -> dict[str, str]:
        return {"client_request_id": f"{model}:1"} if model else {}

    def search(
        self, name: str, rows: Float32, k: int, model: str | None = None, above: float | None = None
    ) -> list[Found]:
        params = {"metric_type": "COSINE", **({"radius": above} if above is not None else {})}
        if model:
            params["embedding_model"] = model
        answers = MilvusClient(self.uri).search(name, rows.tolist(), limit=k, search_params=params)
        return [Found([hit["id"] for hit in hits], [hit["distance"] for hit in hits]) for hits in answers]

    def read(self, name: str, ids: Sequence[int], model: str | None = None) -> Float32:
        rows = MilvusClient(self.uri).get(name, ids=list(ids), output_fields=[FIELD], **self._declared(model))
        found = {row["id"]: row[FIELD] for row in rows}
        return np.array([found[point] for point in ids], np.float32)

    def refusal(self, error: Exception) -> str:
        assert isinstance(error, MilvusException), repr(error)
        return str(error.message)


@dataclass(frozen=True)
class Example:
    """A database with Crossfade in front of it."""

    kind: str
    serving: Serving
    through: Client
    direct: Client

    def flip(self, collection: str, query_model: str) -> None:
        """Change the flag in the running Crossfade's file."""
        settings = yaml.safe_load(self.serving.config.read_text())
        settings["collections"][collection]["query_model"] = query_model
        self.serving.config.write_text(yaml.safe_dump(settings))


@contextmanager
def start_example(kind: str, directory: Path, settings: str) -> Iterator[Example]:
    """An embedded database and Crossfade in front of it."""
    if kind == "qdrant":
        with QdrantServer(directory / "data") as server:
            upstream = f'grpc: "127.0.0.1:{server.grpc_port}", rest: "http://127.0.0.1:{server.rest_port}"'
            with start_serving(directory, upstream, settings) as serving:
                through = QdrantUser(serving.grpc_port, serving.rest_port)
                yield Example(kind, serving, through, QdrantUser(server.grpc_port, server.rest_port))
        return
    (port,) = free_ports(1)
    with (
        start_embedded(directory / "data", port),
        start_milvus_serving(directory, f'grpc: "127.0.0.1:{port}"', settings) as serving,
    ):
        yield Example(kind, serving, MilvusUser(serving.uri), MilvusUser(f"http://127.0.0.1:{port}"))
