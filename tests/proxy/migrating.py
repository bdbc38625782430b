"""A collection in mid-migration behind a running Crossfade: some of its points in the target, a view published."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from qdrant_client import QdrantClient
from qdrant_client import models as m

from crossfade.adapters.base import Float32
from crossfade.backends.embedded import QdrantServer
from crossfade.backends.index import Distance
from crossfade.proxy.leading import Led, write_led
from crossfade.proxy.loading import load_config
from crossfade.proxy.migration.machine import CAPTURING, State
from crossfade.proxy.migration.record import MigrationView
from crossfade.proxy.migration.sample import Sampler, sample_folder, sample_path
from crossfade.proxy.rundir import publish_migrations, publish_routes
from crossfade.proxy.supervisor import DIALECTS
from tests.proxy.serving import Serving, start_serving, wait_until

OLD, TARGET = "docs", "docs--new"


@dataclass
class Migrating:
    """The collection `docs`, made by one model, on its way to `docs--new`, made by another."""

    serving: Serving
    direct: QdrantClient
    view: MigrationView
    _routes: int = 0
    migrated: set[int] = field(default_factory=set)

    @property
    def run_dir(self) -> Path:
        """Where the running process keeps what its workers read."""
        environment = Path(f"/proc/{self.serving.worker_pids()[0]}/environ").read_bytes().split(b"\0")
        found = next(one for one in environment if one.startswith(b"CROSSFADE_RUN_DIR="))
        return Path(found.partition(b"=")[2].decode())

    def move(self, **changes: Any) -> None:
        """Publish a view with these changes, and wait until every worker serves with it."""
        version = self.view.version + 1
        captures = changes.get("state", self.view.state) in CAPTURING  # as a migration's record has it
        self.view = self.view.model_copy(update={"captures": captures, **changes, "version": version})
        run_dir = self.run_dir
        publish_migrations(run_dir, [self.view])
        config = load_config(self.serving.config)
        self._routes += 1000
        write_led(run_dir, Led({OLD: OLD}))
        publish_routes(run_dir, config, DIALECTS, self._routes)
        pids = self.serving.worker_pids()
        wait_until(lambda: all(self._seen(run_dir, pid) == version for pid in pids), 10, f"version {version} is seen")

    def _seen(self, run_dir: Path, pid: int) -> int:
        stated = orjson.loads((run_dir / f"worker-{pid}.json").read_bytes())
        return int(stated["migrations"].get(self.view.id, -1))

    def write_sample(self, new: Float32, old: Float32, rows: Sequence[int], distance: Distance = "cosine") -> None:
        """The kept sample of these rows, as the controller writes it."""
        folder = sample_folder(load_config(self.serving.config))
        sampler = Sampler(sample_path(folder, self.view.id), distance)
        sampler.note({int(row): (new[row], old[row]) for row in rows}, [])
        sampler.write()

    def client(self, *, grpc: bool, **headers: str) -> QdrantClient:
        """An unmodified client with these headers (x_client_id: x-client-id)."""
        return self.serving.client(
            grpc=grpc, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )


@contextmanager
def start_migrating(folder: Path, settings: str, *, dims: tuple[int, int], workers: int = 1) -> Iterator[Migrating]:
    """An embedded Qdrant with both collections empty, and Crossfade in front of it."""
    with QdrantServer(folder / "data") as server:
        direct = QdrantClient(host="127.0.0.1", port=server.rest_port, grpc_port=server.grpc_port, prefer_grpc=True)
        for name, dim in zip((OLD, TARGET), dims, strict=True):
            direct.create_collection(
                name,
                vectors_config=m.VectorParams(size=dim, distance=m.Distance.COSINE),
                hnsw_config=m.HnswConfigDiff(m=0),
            )
        upstream = f'grpc: "127.0.0.1:{server.grpc_port}", rest: "http://127.0.0.1:{server.rest_port}"'
        with start_serving(folder, upstream, settings, workers) as serving:
            yield Migrating(serving, direct, first_view())


def first_view(**changes: Any) -> MigrationView:
    """The view of a migration from `old` to `new` that is copying."""
    view = MigrationView(
        id="m-1", collection=OLD, target=TARGET, field="", from_model="old", to_model="new", state=State.BACKFILLING,
        percent=0, strategy="auto", shadow=0, migrated=0, captures=True, holds_writes=False, version=0,
    )  # fmt: skip
    return view.model_copy(update=changes)


def fill(client: QdrantClient, name: str, vectors: Float32, rows: Sequence[int]) -> None:
    """Write rows of vectors under their row numbers, with a payload to filter by."""
    points = [
        m.PointStruct(id=int(row), vector=vectors[row].tolist(), payload={"row": int(row), "third": int(row) % 3})
        for row in rows
    ]
    for start in range(0, len(points), 500):
        client.upsert(name, points[start : start + 500], wait=True)


def ids(points: Any) -> list[int]:
    """The ids of found points."""
    return [point.id for point in points]


def unit(rows: Any) -> Float32:
    """Rows of unit length."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / lengths, np.float32)
