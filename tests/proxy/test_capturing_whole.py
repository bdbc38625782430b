"""A migration through a running Crossfade on an embedded Qdrant, with unmodified clients that write in every way there
is while a worker is killed: in the end both sides hold the same."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from tests.proxy.encoding_function import encode_one
from tests.proxy.serving import Serving, start_serving, wait_until

POINTS, OLD = 400, 16
SETTINGS = """
models:
  old: {dim: 16}
  new: {dim: 24, encoder: {python: "tests.proxy.encoding_function:encode"}}
collections:
  docs: {index_model: old, text: payload.text, migrate: {to: new, pace: {rate: 400}}}
"""


def vector_of(text: str) -> list[float]:
    row: list[float] = encode_one(text, "old")[:OLD].astype(float).tolist()
    return row


def point_of(identity: int, text: str, group: int) -> models.PointStruct:
    return models.PointStruct(id=identity, vector=vector_of(text), payload={"text": text, "group": group})


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    with start_serving(tmp_path, "embedded: ./data", SETTINGS, workers=2) as running:
        client = running.client(grpc=True)
        client.create_collection("docs", models.VectorParams(size=OLD, distance=models.Distance.COSINE))
        client.create_payload_index("docs", "group", models.PayloadSchemaType.INTEGER, wait=True)
        client.upsert("docs", [point_of(at, f"text {at}", at % 20) for at in range(POINTS)], wait=True)
        alias = models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name="docs", alias_name="other"))
        client.update_collection_aliases([alias])
        yield running


def in_group(group: int) -> models.Filter:
    return models.Filter(must=[models.FieldCondition(key="group", match=models.MatchValue(value=group))])


def write_once(client: QdrantClient, chance: random.Random) -> str:
    """One write of any kind, by ids or by filter, waiting or not, by either name; returns its kind."""
    name = chance.choice(["docs", "docs", "other"])
    text, group, waits = f"text {chance.randrange(10**9)}", chance.randrange(20), chance.random() < 0.5
    ids: list[Any] = chance.sample(range(POINTS + 50), 3)
    by_ids, by_filter = models.PointIdsList(points=ids), models.FilterSelector(filter=in_group(group))
    chosen: Any = chance.choice([by_ids, by_filter])
    points = [point_of(one, f"{text} {one}", chance.randrange(20)) for one in ids]
    moved = [models.PointVectors(id=one, vector=vector_of(text)) for one in ids]
    payload = {"text": text, "n": group}
    batch: list[Any] = [
        models.UpsertOperation(upsert=models.PointsList(points=points)),
        models.SetPayloadOperation(set_payload=models.SetPayload(payload=payload, filter=in_group(group))),
        models.DeleteOperation(delete=models.FilterSelector(filter=in_group((group + 1) % 20))),
        models.UpsertOperation(upsert=models.PointsList(points=points)),
    ]
    kinds: dict[str, Callable[[], object]] = {
        "upsert": lambda: client.upsert(name, points, wait=waits),
        "delete": lambda: client.delete(name, chosen, wait=waits),
        "update_vectors": lambda: client.update_vectors(name, moved, wait=waits),
        "delete_vectors": lambda: client.delete_vectors(name, [""], chosen, wait=waits),
        "set_payload": lambda: client.set_payload(name, payload, chosen, wait=waits),
        "overwrite_payload": lambda: client.overwrite_payload(name, {**payload, "group": group}, chosen, wait=waits),
        "delete_payload": lambda: client.delete_payload(name, ["n"], chosen, wait=waits),
        "clear_payload": lambda: client.clear_payload(name, chosen, wait=waits),
        "batch": lambda: client.batch_update_points(name, batch, wait=waits),
    }
    kind = chance.choice([*kinds, "upsert", "upsert", "upsert"])
    kinds[kind]()
    return kind


class Writer(threading.Thread):
    """Writes until it is told to stop; a write whose worker is killed may or may not have happened."""

    def __init__(self, serving: Serving, seed: int) -> None:
        super().__init__(daemon=True)
        self.serving, self.seed = serving, seed
        self.stopping = threading.Event()
        self.kinds: set[str] = set()
        self.failures: list[str] = []

    def run(self) -> None:
        chance = random.Random(self.seed)
        client = self.serving.client(grpc=self.seed % 2 == 0)
        while not self.stopping.is_set():
            self.stopping.wait(0.02)
            try:
                self.kinds.add(write_once(client, chance))
            except Exception as error:
                if "No point with id" not in str(error):  # of a point that another has deleted
                    self.failures.append(str(error))
                    client = self.serving.client(grpc=self.seed % 2 == 0)


def status_of(serving: Serving) -> dict[str, Any]:
    answer = httpx.get(f"{serving.admin}/migrations/docs", timeout=60)
    found: dict[str, Any] = answer.json()
    return found


def contents(serving: Serving, name: str) -> dict[Any, tuple[Any, bool]]:
    """Payload of each point, and whether it has a vector."""
    client = serving.client(grpc=True)
    records, _ = client.scroll(name, limit=10_000, with_vectors=True)
    return {one.id: (one.payload, one.vector is not None and len(one.vector) > 0) for one in records}


def test_whatever_clients_write_in_whatever_way_both_sides_hold_the_same_in_the_end(serving: Serving) -> None:
    writers = [Writer(serving, seed) for seed in range(4)]
    for writer in writers:
        writer.start()
    started = httpx.post(f"{serving.admin}/migrations/docs/start", json={"actor": "test"}, timeout=60)
    assert started.status_code == 200, started.text
    wait_until(lambda: status_of(serving)["state"] == "BACKFILLING", 60, "the copying begins")
    os.kill(serving.worker_pids()[0], signal.SIGKILL)
    wait_until(lambda: status_of(serving)["state"] == "SYNCED", 90, "all is copied")
    for writer in writers:
        writer.stopping.set()
    for writer in writers:
        writer.join(30)
    assert not any("already" in failure for writer in writers for failure in writer.failures)
    assert set().union(*(writer.kinds for writer in writers)) >= {"upsert", "delete", "batch", "clear_payload"}
    wait_until(lambda: status_of(serving)["backlog"]["count"] == 0, 60, "what was written is brought over")
    old, new = contents(serving, "docs"), contents(serving, "docs--new")
    assert old.keys() == new.keys()
    texts = {one for one, (payload, vector) in old.items() if vector and payload.get("text")}
    assert {one: payload for one, (payload, _) in old.items()} == {one: payload for one, (payload, _) in new.items()}
    assert {one for one, (_, vector) in new.items() if vector} == texts
    check_vectors(serving, {one: old[one][0]["text"] for one in texts})


def check_vectors(serving: Serving, texts: dict[Any, str]) -> None:
    records = serving.client(grpc=True).retrieve("docs--new", list(texts), with_vectors=True)
    for record in records:
        wanted = encode_one(texts[record.id], "passage")
        found = np.asarray(record.vector)
        assert found @ wanted / np.linalg.norm(wanted) / np.linalg.norm(found) > 0.999, record.id
