"""The invariants of a migration (docs/design.md), each through a running Crossfade on the embedded Qdrant.

Lost, resurrected and stale writes, and kills anywhere, are in tests/chaos; two controllers in tests/proxy/migration.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from qdrant_client import models

from crossfade.proxy.admin_client import Refused
from crossfade.proxy.strategies import find_position
from tests.chaos.compare import read_everything
from tests.chaos.stage import COLLECTION, TARGET, Stage, native_vector
from tests.proxy.encoding_function import encode_one
from tests.proxy.migration.scenery import id_of, old_vector

POINTS = 200
NEW = {"x-embedding-model": "new"}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One migration, on which the tests below go on from each other's state, in their order."""
    with Stage(tmp_path_factory.mktemp("invariants"), points=POINTS) as made:
        with made.direct() as client:
            client.create_collection("others", models.VectorParams(size=4, distance=models.Distance.COSINE))
        made.say("start")
        made.until({"SYNCED"})
        assert made.verify() == {}
        yield made


def ask(stage: Stage, name: str, *, grpc: bool = True, k: int = 10, filtered: bool = False) -> list[models.ScoredPoint]:
    """A search by a client of the new model with a name of its own."""
    client = stage.serving.client(grpc=grpc, headers={**NEW, "x-client-id": name})
    only = models.Filter(must=[models.HasIdCondition(has_id=[id_of(at) for at in range(50)])]) if filtered else None
    found = client.query_points(COLLECTION, native_vector("a query").tolist(), limit=k, query_filter=only)
    client.close()
    return found.points


def write(stage: Stage, at: int, text: str) -> None:
    """An acknowledged write by a client of the old model."""
    client = stage.serving.client(grpc=True)
    point = models.PointStruct(id=id_of(at), vector=old_vector(text), payload={"text": text, "token": text})
    client.upsert(COLLECTION, [point], wait=True)
    client.close()


@pytest.mark.parametrize("grpc", [True, False])
def test_no_hit_is_doubled_while_both_indexes_answer(stage: Stage, grpc: bool) -> None:
    for filtered in (False, True):
        found = [hit.id for hit in ask(stage, "anyone", grpc=grpc, k=60, filtered=filtered)]
        assert len(found) == (50 if filtered else 60)
        assert len(set(found)) == len(found)


def test_each_index_holds_one_space(stage: Stage) -> None:
    write(stage, 3, "of the old model")
    client = stage.serving.client(grpc=True, headers=NEW)
    sent = native_vector("of the new model")
    client.upsert(COLLECTION, [models.PointStruct(id=4, vector=sent.tolist(), payload={"text": "t"})], wait=True)
    client.close()
    stage.until_quiet()
    with stage.direct() as direct:
        old, new = read_everything(direct, COLLECTION), read_everything(direct, TARGET)
    assert {len(record.vector or ()) for record in old.values()} == {16}
    assert {len(record.vector or ()) for record in new.values()} == {24}
    unit = sent / np.linalg.norm(sent)
    np.testing.assert_allclose(new[4].vector, unit, atol=1e-5)  # type: ignore[arg-type] # dense
    mapped = stage.adapter.document.apply(sent[None])[0]
    np.testing.assert_allclose(old[4].vector, mapped / np.linalg.norm(mapped), atol=1e-5)  # type: ignore[arg-type]
    wanted = encode_one("of the old model", "passage")
    np.testing.assert_allclose(new[id_of(3)].vector, wanted / np.linalg.norm(wanted), atol=1e-5)  # type: ignore[arg-type]


def test_a_rising_share_only_moves_clients_to_the_new_index(stage: Stage) -> None:
    migration = stage.status()["id"]
    names = [f"client-{at}" for at in range(40)]
    places = {name: find_position(migration, b"client " + name.encode()) for name in names}
    led: list[set[str]] = []
    for percent in (10.0, 50.0, 100.0):
        stage.say("switch", percent=percent)
        stage.wait(lambda: not stage.status()["settling"], 20, "the target shows what was acknowledged")
        wait_for_workers(stage)
        led.append({name for name in names if is_native(stage, name)})
        assert led[-1] == {name for name, place in places.items() if place < percent}
    assert led[0] <= led[1] <= led[2] == set(names)


def wait_for_workers(stage: Stage) -> None:
    """Views are taken up within a second."""
    time.sleep(1.5)


def is_native(stage: Stage, name: str) -> bool:
    """Whether a client's search is answered by the target alone, as the answer's header says."""
    answer = httpx.post(
        f"{stage.serving.rest}/collections/{COLLECTION}/points/query",
        json={"query": native_vector("a query").tolist(), "limit": 1},
        headers={**NEW, "x-client-id": name},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    return "strategy=native" in answer.headers["x-crossfade"]


def test_reverse_loses_nothing_that_was_written_while_switched(stage: Stage) -> None:
    assert stage.state() == "SWITCHED"
    for at in range(10, 20):
        write(stage, at, f"while switched {at}")
    stage.say("reverse")
    stage.until({"SYNCED"})
    wait_for_workers(stage)
    client = stage.serving.client(grpc=True)
    found = client.retrieve(COLLECTION, [id_of(at) for at in range(10, 20)])
    client.close()
    assert sorted((record.payload or {})["text"] for record in found) == [
        f"while switched {at}" for at in range(10, 20)
    ]


def test_collections_without_a_migration_are_untouched(stage: Stage) -> None:
    client = stage.serving.client(grpc=False)
    client.upsert("others", [models.PointStruct(id=1, vector=[1.0, 0.0, 0.0, 0.0], payload={"a": 1})], wait=True)
    assert client.query_points("others", [1.0, 0.0, 0.0, 0.0]).points[0].id == 1
    client.close()
    assert stage.status()["backlog"]["count"] == 0
    assert names_of(stage) == {COLLECTION, TARGET, "others"}


def names_of(stage: Stage) -> set[str]:
    with stage.direct() as direct:
        return {one.name for one in direct.get_collections().collections}


def test_nothing_but_complete_and_cancel_destroys(stage: Stage) -> None:
    for verb in ("pause", "resume", "verify", "repair"):
        stage.say(verb)
    stage.say("switch", percent=100.0, force=True)
    stage.say("reverse")
    assert names_of(stage) == {COLLECTION, TARGET, "others"}
    with stage.direct() as direct:
        assert direct.count(COLLECTION).count == direct.count(TARGET).count >= POINTS


def test_a_target_that_fails_never_fails_a_query_that_the_old_index_can_serve(stage: Stage) -> None:
    stage.until_quiet()
    with stage.direct() as direct:
        kept: Any = direct.get_collection(TARGET)
        assert kept.points_count
        direct.delete_collection(TARGET)
    try:
        found = ask(stage, "anyone", k=10)
        assert len(found) == 10
    finally:
        assert stage.state() in ("SYNCED", "FAILED")


def test_cancel_leaves_the_old_index_as_it_is(stage: Stage) -> None:
    with stage.direct() as direct:
        before = read_everything(direct, COLLECTION)
    stage.say("cancel")
    stage.wait(lambda: stage.status()["cleaned"], 30, "cleaned up")
    with stage.direct() as direct:
        assert read_everything(direct, COLLECTION) == before
    assert names_of(stage) == {COLLECTION, "others"}
    with pytest.raises(Refused, match="CANCELLED"):
        stage.say("switch", percent=10.0)
