"""The demo's Qdrant: the embedded one, and qdrant-client as it comes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from .demo_database import DEPTH, HOST, Database, Float32, Kind, Place, Ports, Refused
from .demo_text import Package

_BATCH = 256


@dataclass(frozen=True, slots=True)
class _Client:
    """See demo_database.Client."""

    client: QdrantClient

    def build(self, collection: str, packages: Sequence[Package], vectors: Float32) -> None:
        size = models.VectorParams(size=vectors.shape[1], distance=models.Distance.COSINE)
        self.client.create_collection(collection, vectors_config=size)
        for first in range(0, len(packages), _BATCH):
            points = [
                models.PointStruct(
                    id=at, vector=vectors[at].tolist(), payload={"name": one.name, "text": one.description}
                )
                for at, one in enumerate(packages[first : first + _BATCH], start=first)
            ]
            self.client.upsert(collection, points, wait=True)

    def ask(self, collection: str, vector: list[float]) -> list[int]:
        try:
            points = self.client.query_points(collection, query=vector, limit=DEPTH).points
        except grpc.RpcError as error:
            raise Refused(error.details()) from error
        except UnexpectedResponse as error:
            raise Refused(str(error)) from error
        return [int(point.id) for point in points]


@dataclass(frozen=True, slots=True)
class _Writer:
    """See demo_database.Writer."""

    client: QdrantClient

    def put(self, collection: str, at: int, package: Package, vector: Float32, edition: int) -> None:
        payload = {"name": package.name, "text": package.description, "edition": edition}
        with _refusing():
            self.client.upsert(collection, [models.PointStruct(id=at, vector=vector.tolist(), payload=payload)])

    def edit(self, collection: str, at: int, edition: int) -> None:
        with _refusing():
            self.client.set_payload(collection, {"edition": edition}, [at])

    def delete(self, collection: str, at: int) -> None:
        with _refusing():
            self.client.delete(collection, models.PointIdsList(points=[at]))

    def editions(self, collection: str, ids: Sequence[int]) -> dict[int, int]:
        found = self.client.retrieve(collection, list(ids), with_payload=["edition"])
        return {int(one.id): (one.payload or {})["edition"] for one in found}


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise Refused(error.details()) from error


class _Qdrant:
    """See demo_database.Database."""

    kind: Kind = "qdrant"
    title = "Qdrant"
    transports: Sequence[str] = ("gRPC", "REST")
    one_port = False

    def listen(self, front: Place) -> str:
        return f'qdrant: {{grpc: "{HOST}:{front.grpc}", rest: "{HOST}:{front.rest}"}}'

    def upstream(self, direct: Place) -> str:
        return f'qdrant: {{kind: qdrant, grpc: "{HOST}:{direct.grpc}", rest: "http://{HOST}:{direct.rest}"}}'

    def command(self, data: Path, direct: Place) -> list[str]:
        command = [sys.executable, "-m", "crossfade.backends.embedded", "--data", str(data), "--with-parent"]
        return [*command, "--grpc-port", str(direct.grpc), "--rest-port", str(direct.rest)]

    def is_ready(self, direct: Place) -> bool:
        try:
            return httpx.get(f"http://{HOST}:{direct.rest}/readyz", timeout=2.0).status_code == 200
        except httpx.TransportError:
            return False

    def connect(self, place: Place, transport: str) -> _Client:
        over_grpc = transport == "gRPC"
        return _Client(
            QdrantClient(host=HOST, port=place.rest, grpc_port=place.grpc, prefer_grpc=over_grpc, timeout=60)
        )

    def writer(self, place: Place) -> _Writer:
        return _Writer(self.connect(place, "gRPC").client)

    def read_mark(self, front: Place, collection: str, vector: list[float]) -> str:
        body = {"query": vector, "limit": 1}
        answer = httpx.post(f"http://{HOST}:{front.rest}/collections/{collection}/points/query", json=body)
        answer.raise_for_status()
        return answer.headers["x-crossfade"]

    def what_to_try(self, ports: Ports, collection: str, query: Path) -> str:
        return f"""\
curl -si http://{HOST}:{ports.front_rest}/collections/{collection}/points/query \\
  -H 'content-type: application/json' -d @{query}

python -c '
import json; from qdrant_client import QdrantClient
query = json.load(open("{query}"))["query"]
print(QdrantClient("{HOST}", port={ports.front_rest}).query_points("{collection}", query=query, limit=3))'
"""


DATABASE: Database = _Qdrant()
