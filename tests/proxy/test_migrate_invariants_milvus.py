"""What a migration promises, on Milvus: the embedded one and the real 2.3.5.

One migration goes the whole way, with writers, a killed worker and a killed supervisor in its first half. Each test
looks at one promise, in the order of the way.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymilvus import MilvusClient, MilvusException

from crossfade.adapters.base import Float32
from crossfade.proxy.admin_client import AdminClient, NotServing
from crossfade.proxy.loading import load_config
from crossfade.proxy.migration.places import store_url
from crossfade.proxy.migration.runner import LEASE
from crossfade.proxy.migration.store import Store
from tests.ports import free_ports
from tests.proxy.encoding_function import encode_old, encode_one
from tests.proxy.milvus_serving import MilvusServing, start_embedded, start_milvus_serving
from tests.proxy.serving import spawn_serve, wait_serving, wait_until
from tests.proxy.toy_adapters import OLD, save_toy

NAME, TARGET, OTHER = "promised", "promised__new", "bystander"
COUNT, HOT, WRITERS = 120, 24, 3
SETTINGS = f"""
models:
  old: {{dim: 16}}
  new: {{dim: 24, encoder: {{python: "tests.proxy.encoding_function:encode"}}}}
collections:
  {NAME}:
    index_model: old
    query_model: new
    adapters: {{new: adapter}}
    text: title
    migrate: {{to: new, field: vector, pace: {{rate: 25}}}}
  {OTHER}: {{index_model: old}}
state: state
"""


@dataclass
class Way:
    """The migration. `said`: of each key that was written, the title that was acknowledged last, None for deleted."""

    serving: MilvusServing
    direct: MilvusClient
    said: dict[int, str | None] = field(default_factory=dict)

    @property
    def admin(self) -> AdminClient:
        return AdminClient(self.serving.admin)

    def status(self) -> dict[str, Any]:
        """What the migration says."""
        found: dict[str, Any] = self.admin.get(NAME)
        return found

    def say(self, verb: str, state: str, **body: Any) -> None:
        """A verb, and the state that it leads to."""
        self.admin.say(NAME, verb, body)
        wait_until(lambda: self.status()["state"] == state and not self.status().get("settling"), 60, state)

    def wait_quiet(self) -> None:
        """Wait until nothing waits to be brought over."""

        def is_quiet() -> bool:
            with suppress(NotServing):
                return bool(self.status()["state"] != "BACKFILLING" and self.status()["backlog"]["count"] == 0)
            return False

        wait_until(is_quiet, 90, "everything is brought over")

    def rows(self, name: str) -> dict[int, dict[str, Any]]:
        """Everything in a collection."""
        found = self.direct.query(name, filter="id >= 0", output_fields=["*"], consistency_level="Strong")
        return {row["id"]: row for row in found}

    def titles(self, name: str) -> dict[int, str]:
        """What a collection has under each key."""
        return {key: row["title"] for key, row in self.rows(name).items()}

    def hits(self, text: str, limit: int = 1) -> list[Any]:
        """What a client of the new model finds."""
        asked = encode_one(text, "passage").tolist()
        client = MilvusClient(self.serving.uri)
        try:
            return list(client.search(NAME, [asked], limit=limit, output_fields=["title"])[0])
        finally:
            client.close()

    def reads_new(self, key: int) -> bool:
        """Whether the new index answers the query of a point that nobody writes: with a score no other can have."""
        (hit,) = self.hits(f"text {key}")
        return bool(hit["id"] == key and hit["distance"] > 0.999)

    def all_new(self, keys: Sequence[int]) -> set[int]:
        """Those of these points that the new index answers for, asked beside each other: Milvus lets each wait."""
        with ThreadPoolExecutor(8) as threads:
            return {key for key, is_new in zip(keys, threads.map(self.reads_new, keys), strict=True) if is_new}


def row_of(key: int, title: str) -> dict[str, Any]:
    return {"id": key, "vector": encode_old([title], "passage")[0].tolist(), "title": title, "n": key % 7}


@contextmanager
def writing(way: Way) -> Iterator[None]:
    """Clients that write and delete the first points, each again until it is acknowledged, and each its own ones."""
    stop = threading.Event()

    def write(number: int) -> None:
        chance, client = random.Random(number), MilvusClient(way.serving.uri)
        while not stop.is_set():
            key = chance.randrange(number, HOT, WRITERS)
            title = None if chance.random() < 0.3 else f"{number} {uuid.uuid4().hex}"
            while True:
                try:
                    if title is None:
                        client.delete(NAME, ids=[key])
                    else:
                        client.upsert(NAME, [row_of(key, title)])
                    break
                except MilvusException:  # whoever served it was killed
                    stop.wait(0.1)
            way.said[key] = title
            stop.wait(0.05)
        client.close()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


@contextmanager
def address_of(server: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    if server == "real":
        yield request.getfixturevalue("real_milvus")
        return
    pytest.importorskip("milvus_lite")
    (port,) = free_ports(1)
    with start_embedded(folder / "data", port):
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="module", params=["lite", "real"])
def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Way]:
    folder = tmp_path_factory.mktemp("promises")
    save_toy(folder / "adapter")
    with address_of(request.param, request, folder) as address:
        direct = MilvusClient(f"http://{address}")
        for name in (NAME, OTHER):
            direct.create_collection(name, dimension=OLD, metric_type="COSINE", consistency_level="Strong")
            direct.insert(name, [row_of(key, f"text {key}") for key in range(COUNT)])
        with start_milvus_serving(folder, f'grpc: "{address}"', SETTINGS) as serving:
            way = Way(serving, direct)
            with writing(way):
                way.say("start", "BACKFILLING")
                break_in(way)
            way.wait_quiet()
            yield way
        for name in (NAME, TARGET, OTHER):
            direct.drop_collection(name)


def break_in(way: Way) -> None:
    """Kill a worker, then the supervisor with the controller in it, early on the way."""
    serving = way.serving
    os.kill(serving.worker_pids()[0], signal.SIGKILL)
    wait_serving(serving, "another worker serves")
    serving.process.kill()
    serving.process.wait()
    serving.process = spawn_serve(serving.config, serving.log)
    wait_serving(serving, "another supervisor serves")
    before = dict(way.said)
    wait_until(lambda: way.said != before, 60, "clients write again")


def test_no_acknowledged_write_is_lost(way: Way) -> None:
    kept = {key: title for key, title in way.said.items() if title is not None}
    assert len(kept) > HOT / 3
    for name in (NAME, TARGET):
        titles = way.titles(name)
        assert {key: titles.get(key) for key in kept} == kept


def test_nothing_that_was_deleted_comes_back(way: Way) -> None:
    deleted = {key for key, title in way.said.items() if title is None}
    assert deleted
    for name in (NAME, TARGET):
        assert deleted.isdisjoint(way.titles(name))


def test_nothing_newer_is_overwritten_by_something_older(way: Way) -> None:
    assert way.titles(TARGET) == way.titles(NAME)


def test_each_index_holds_the_vectors_of_one_model(way: Way) -> None:
    for name, made in ((NAME, lambda title: encode_old([title], "passage")[0]), (TARGET, encode_passage)):
        for key, row in way.rows(name).items():
            stored, wanted = np.asarray(row["vector"], np.float32), made(row["title"])
            assert stored.shape == wanted.shape
            cosine = stored @ wanted / np.linalg.norm(stored) / np.linalg.norm(wanted)
            assert cosine > 0.999, (name, key)


def encode_passage(title: str) -> Float32:
    return encode_one(title, "passage")


def test_kills_leave_the_same_content_as_none_would(way: Way) -> None:
    """Verification compares all of it again, and a sample of texts."""
    way.admin.say(NAME, "verify", {})
    wait_until(lambda: way.status()["verified_at"] is not None, 60, "a verification")
    assert way.status()["findings"] == {}


def test_a_collection_without_a_migration_is_untouched(way: Way) -> None:
    assert way.titles(OTHER) == {key: f"text {key}" for key in range(COUNT)}


def test_one_controller_leads_at_a_time(way: Way) -> None:
    store = Store(store_url(load_config(way.serving.config)))
    try:
        assert asyncio.run(store.acquire(LEASE, "another", 15.0)) is None
    finally:
        store.shut()


def test_raising_the_share_only_moves_queries_from_the_old_index_to_the_new(way: Way) -> None:
    asked = range(HOT, COUNT, 2)
    moved: set[int] = set()
    for percent, state in ((20, "CANARY"), (60, "CANARY"), (100, "SWITCHED")):
        way.say("switch", state, percent=percent, force=True)
        seen: list[set[int]] = []

        def is_told(seen: list[set[int]] = seen, before: set[int] = moved) -> bool:
            seen.append(way.all_new(asked))
            return before <= seen[-1]

        wait_until(is_told, 60, "it is told")
        assert moved < seen[-1] or len(seen[-1]) == len(asked)
        moved = seen[-1]
    assert moved == set(asked)


def test_no_hit_comes_twice(way: Way) -> None:
    found = [hit["id"] for hit in way.hits("text 30", limit=COUNT)]
    assert len(found) == len(set(found)) == len(way.titles(TARGET))


def test_a_target_that_fails_fails_no_query(way: Way) -> None:
    way.direct.release_collection(TARGET)
    try:
        with pytest.raises(MilvusException):
            way.direct.search(TARGET, [[0.1] * 24], limit=1)
        assert len(way.hits("text 31", limit=5)) == 5
    finally:
        way.direct.load_collection(TARGET)
    wait_until(lambda: way.reads_new(33), 60, "the new index answers again")


def test_reverse_loses_nothing(way: Way) -> None:
    client = MilvusClient(way.serving.uri)
    client.upsert(NAME, [row_of(500, "written after the switch")])
    client.delete(NAME, ids=[COUNT - 1])
    way.say("reverse", "SYNCED")
    found = client.query(NAME, filter="id >= 0", output_fields=["title"], consistency_level="Strong")
    assert {row["id"]: row["title"] for row in found} == way.titles(NAME)
    assert way.titles(NAME)[500] == "written after the switch"
    assert COUNT - 1 not in way.titles(NAME)
    client.close()


def test_only_complete_destroys_and_only_what_it_is_told_to(way: Way) -> None:
    for name in (NAME, TARGET, OTHER):
        assert way.direct.has_collection(name)
    way.say("switch", "SWITCHED", percent=100, force=True)
    way.say("complete", "COMPLETED", force=True)
    assert way.direct.has_collection(NAME)
    assert way.titles(TARGET)[500] == "written after the switch"
    assert way.reads_new(35)
