"""Both databases as background work meets them: an Index each, and a collection made by the database's own client."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pymilvus import DataType, MilvusClient
from qdrant_client import AsyncQdrantClient
from qdrant_client import models as m

from crossfade.backends.dialect import Float32
from crossfade.backends.embedded.milvus import MilvusServer
from crossfade.backends.embedded.qdrant.server import QdrantServer
from crossfade.backends.index import Index, PointId
from crossfade.backends.milvus.index import MilvusIndex
from crossfade.backends.qdrant.index import QdrantIndex

DIM = 8
FIELD = "emb"


@dataclass(frozen=True)
class Stored:
    """What a collection was filled with: row i (DIM,) under ids[i], payload {"title": "t<i>", "nested": {"n": [i]}}."""

    name: str
    ids: Sequence[PointId]
    rows: Float32


class Case(Protocol):
    """An index under test."""

    @property
    def index(self) -> Index: ...

    async def make(self, n: int, *, text_ids: bool = False) -> Stored:
        """A collection with cosine vectors in FIELD, searched exactly, written in no order."""


def draw(n: int, seed: int = 0, dim: int = DIM) -> Float32:
    rows = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    unit: Float32 = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def payload_of(at: int) -> dict[str, Any]:
    return {"title": f"t{at}", "nested": {"n": [at], "é": None}}


@dataclass(frozen=True)
class QdrantCase:
    index: Index
    client: AsyncQdrantClient

    async def make(self, n: int, *, text_ids: bool = False) -> Stored:
        name, rows = f"c{uuid.uuid4().hex}", draw(n)
        vectors = {FIELD: m.VectorParams(size=DIM, distance=m.Distance.COSINE)}
        await self.client.create_collection(name, vectors)
        ids: list[PointId] = [str(uuid.UUID(int=at)) if text_ids else at for at in range(n)]
        points = [
            m.PointStruct(id=ids[at], vector={FIELD: rows[at].tolist()}, payload=payload_of(at))
            for at in np.random.default_rng(1).permutation(n).tolist()
        ]
        await self.client.upsert(name, points, wait=True)
        return Stored(name, ids, rows)


@dataclass(frozen=True)
class MilvusCase:
    index: Index
    client: MilvusClient

    async def make(self, n: int, *, text_ids: bool = False) -> Stored:
        name, rows = f"c{uuid.uuid4().hex}", draw(n)
        schema = self.client.create_schema(auto_id=False, enable_dynamic_field=True)
        kind: dict[str, Any] = {"datatype": DataType.VARCHAR, "max_length": 40} if text_ids else {"datatype": 5}
        schema.add_field("pk", is_primary=True, **kind)
        schema.add_field(FIELD, DataType.FLOAT_VECTOR, dim=DIM)
        schema.add_field("title", DataType.VARCHAR, max_length=50)
        settings = self.client.prepare_index_params()
        settings.add_index(FIELD, index_type="FLAT", metric_type="COSINE")
        self.client.create_collection(name, schema=schema, index_params=settings, consistency_level="Strong")
        ids: list[PointId] = [f'it\'s {at:04d} "é"' if text_ids else at for at in range(n)]
        order = np.random.default_rng(1).permutation(n).tolist()
        for part in np.array_split(order, 5):
            made = [{"pk": ids[at], FIELD: rows[at].tolist(), **payload_of(at)} for at in part.tolist()]
            self.client.insert(name, made)
        return Stored(name, ids, rows)


@asynccontextmanager
async def open_qdrant(data: Path) -> AsyncIterator[Case]:
    """The embedded Qdrant."""
    with QdrantServer(data) as server:
        client = AsyncQdrantClient(
            host="127.0.0.1",
            port=server.rest_port,
            grpc_port=server.grpc_port,
            prefer_grpc=True,
            check_compatibility=False,
        )
        yield QdrantCase(QdrantIndex(client), client)
        await client.close()


@asynccontextmanager
async def open_milvus(address: str) -> AsyncIterator[Case]:
    """A running Milvus."""
    client = MilvusClient(f"http://{address}")
    index = MilvusIndex(lambda database: MilvusClient(f"http://{address}", db_name=database))
    yield MilvusCase(index, client)
    await index.close()
    client.close()


@asynccontextmanager
async def open_embedded_milvus(data: Path) -> AsyncIterator[Case]:
    """The embedded Milvus."""
    with MilvusServer(data) as server:
        async with open_milvus(f"127.0.0.1:{server.port}") as case:
            yield case
