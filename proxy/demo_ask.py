"""The demo's client: qdrant-client as it comes, asked for nothing that an application would not ask."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
import httpx
import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from .demo_text import Package

Float32 = NDArray[np.float32]
Advance = Callable[[int], None]
DEPTH = 10
MISSED = -1  # in a ranking: nothing there
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Answers:
    """What a run of queries got: rows of documents (queries, DEPTH), best first, and the error if there was one."""

    rankings: NDArray[np.int64]
    refused: int
    message: str | None


def connect(rest: int, grpc_port: int, *, over_grpc: bool) -> QdrantClient:
    """The client, on two ports of this machine; the only thing that differs between old and new is these ports."""
    return QdrantClient(host="127.0.0.1", port=rest, grpc_port=grpc_port, prefer_grpc=over_grpc, timeout=60)


def build_index(client: QdrantClient, collection: str, packages: Sequence[Package], vectors: Float32) -> None:
    """Create a collection and store vectors (n, dim) with the packages' names and texts."""
    size = models.VectorParams(size=vectors.shape[1], distance=models.Distance.COSINE)
    client.create_collection(collection, vectors_config=size)
    for first in range(0, len(packages), _BATCH):
        points = [
            models.PointStruct(id=at, vector=vectors[at].tolist(), payload={"name": one.name, "text": one.description})
            for at, one in enumerate(packages[first : first + _BATCH], start=first)
        ]
        client.upsert(collection, points, wait=True)


def ask_all(client: QdrantClient, collection: str, vectors: Float32, advance: Advance) -> Answers:
    """Ask one query after the other, vectors (n, dim); a refused one finds nothing and is counted."""
    rankings = np.full((len(vectors), DEPTH), MISSED, np.int64)
    refused, message = 0, None
    for at, vector in enumerate(vectors):
        try:
            points = client.query_points(collection, query=vector.tolist(), limit=DEPTH).points
            rankings[at, : len(points)] = [int(point.id) for point in points]
        except (grpc.RpcError, UnexpectedResponse) as error:
            refused, message = refused + 1, _words(error)
        advance(1)
    return Answers(rankings, refused, message)


def _words(error: Exception) -> str:
    details = getattr(error, "details", None)
    return str(details() if details is not None else error)


def read_mark(rest: int, collection: str, vector: Float32) -> str:
    """The header x-crossfade of one answer over REST, asked without any client: what was done with the query."""
    body = {"query": vector.tolist(), "limit": 1}
    answer = httpx.post(f"http://127.0.0.1:{rest}/collections/{collection}/points/query", json=body)
    answer.raise_for_status()
    return answer.headers["x-crossfade"]


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of single queries, one after the other."""

    p50: float
    p99: float


def measure_latency(routes: Sequence[Callable[[int], object]], count: int, advance: Advance) -> list[Latency]:
    """Time `count` queries by each route in turn, so that whatever else the machine does hits all of them alike."""
    taken = np.empty((count, len(routes)))
    for at in range(count):
        for column, ask in enumerate(routes):
            started = time.perf_counter()
            ask(at)
            taken[at, column] = (time.perf_counter() - started) * 1000
        advance(1)
    return [Latency(*map(float, np.percentile(column, [50, 99]))) for column in taken.T]


def route(client: QdrantClient, collection: str, vectors: Float32) -> Callable[[int], object]:
    """A function that asks the query of a number, with vectors (n, dim) turned into lists beforehand."""
    lists = vectors.tolist()
    return lambda at: client.query_points(collection, query=lists[at % len(lists)], limit=DEPTH)
