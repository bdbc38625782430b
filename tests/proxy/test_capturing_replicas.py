"""Two replicas of Crossfade that share their migrations on a PostgreSQL server, in front of one embedded Qdrant."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from qdrant_client import models

from crossfade.backends.embedded.qdrant.server import QdrantServer
from tests.proxy.migration.postgres_cluster import PostgresCluster, why_not
from tests.proxy.serving import Serving, start_serving, wait_until
from tests.proxy.test_capturing_whole import contents, point_of

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
SETTINGS = """
models:
  old: {dim: 16}
  new: {dim: 24, encoder: {python: "tests.proxy.encoding_function:encode"}}
collections:
  docs: {index_model: old, text: payload.text, migrate: {to: new}}
migrations: {store: "URL", journal: "URL"}
"""


@pytest.fixture
def replicas(tmp_path: Path) -> Iterator[tuple[Serving, Serving]]:
    with ExitStack() as stack:
        cluster = stack.enter_context(PostgresCluster())
        qdrant = stack.enter_context(QdrantServer(tmp_path / "data"))
        upstream = f'grpc: "127.0.0.1:{qdrant.grpc_port}", rest: "http://127.0.0.1:{qdrant.rest_port}"'
        settings = SETTINGS.replace("URL", cluster.make_database())
        started = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            started.append(stack.enter_context(start_serving(tmp_path / name, upstream, settings)))
        client = started[0].client(grpc=True)
        client.create_collection("docs", models.VectorParams(size=16, distance=models.Distance.COSINE))
        client.upsert("docs", [point_of(at, f"text {at}", at) for at in range(100)], wait=True)
        yield started[0], started[1]


def status_of(serving: Serving) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{serving.admin}/migrations/docs", timeout=60).json()
    return found


def test_writes_through_either_replica_are_brought_over_and_one_that_lost_touch_refuses_them(
    replicas: tuple[Serving, Serving],
) -> None:
    one, two = replicas
    os.kill(two.process.pid, signal.SIGSTOP)  # its workers serve on, and learn of nothing
    httpx.post(f"{one.admin}/migrations/docs/start", json={"actor": "test"}, timeout=60).raise_for_status()
    wait_until(lambda: status_of(one)["state"] == "CAPTURING", 60, "the first replica captures")
    try:
        url = f"{two.rest}/collections/docs/points"
        if not refuses(url):  # a slow machine may have lost touch already
            assert status_of(one)["state"] == "CAPTURING", "nothing is copied before the other replica captures"
        wait_until(lambda: refuses(url), 30, "the workers refuse what their supervisor cannot vouch for")
    finally:
        os.kill(two.process.pid, signal.SIGCONT)
    wait_until(lambda: status_of(one)["state"] == "SYNCED", 60, "both capture, and all is copied")
    wait_until(lambda: not refuses(url), 30, "the other replica is in touch again")
    for number, serving in enumerate((one, two)):
        serving.client(grpc=number == 0).upsert("docs", [point_of(200 + number, f"new {number}", 1)], wait=True)
    two.client(grpc=True).delete("docs", models.PointIdsList(points=[3]), wait=True)
    wait_until(lambda: status_of(one)["backlog"]["count"] == 0, 30, "all is brought over")
    old = contents(one, "docs")
    assert {1: {"text": "text 1", "group": 1, "n": 1}, 200: {"text": "new 0", "group": 1}}.items() <= {
        point: payload for point, (payload, _) in old.items()
    }.items()
    assert contents(one, "docs--new") == old


def refuses(url: str) -> bool:
    answer = httpx.post(f"{url}/payload?wait=true", json={"payload": {"n": 1}, "points": [1]}, timeout=60)
    if answer.status_code == 503:
        assert "has not reached the migrations' store" in answer.json()["status"]["error"]
    else:
        assert answer.status_code == 200
    return answer.status_code == 503
