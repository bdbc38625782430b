"""Reads of a collection in mid-migration, through a running Crossfade, against what arrays say."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from grpc import RpcError, StatusCode
from qdrant_client import models as m

from crossfade.adapters.base import Adapter
from crossfade.adapters.merge import blend_queries, fit_matcher
from crossfade.adapters.weights import usual_weights
from crossfade.backends.dialect import Float32
from crossfade.proxy.loading import load_config
from crossfade.proxy.merging import MARGIN, count_candidates
from crossfade.proxy.migration.machine import State
from crossfade.proxy.migration.sample import read_sample, sample_folder, sample_path
from crossfade.proxy.native import filter_module
from crossfade.proxy.strategies import find_position
from tests.proxy.encoding_function import encode_old, encode_one
from tests.proxy.merged_scores import merge_scores
from tests.proxy.migrating import OLD, TARGET, Migrating, fill, ids, start_migrating, unit
from tests.proxy.serving import wait_until
from tests.proxy.test_serve_lifecycle import sample
from tests.proxy.toy_adapters import save_toy

COUNT = 300
SETTINGS = """
models:
  old: {dim: 16, encoder: {python: "tests.proxy.encoding_function:encode_old"}}
  new: {dim: 24, encoder: {python: "tests.proxy.encoding_function:encode"}}
collections: {docs: {index_model: old, query_model: new, adapters: {new: adapter}}}
"""
HALF: dict[str, Any] = {
    "state": State.BACKFILLING,
    "percent": 0.0,
    "migrated": 0.5,
    "strategy": "auto",
    "shadow": 0.0,
    "target": TARGET,
}
THIRDS = [m.Filter(must=[m.FieldCondition(key="third", match=m.MatchValue(value=third))]) for third in range(3)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Migrating, Adapter, Float32, Float32]]:
    """Half of the points are in the target: those with even numbers."""
    folder = tmp_path_factory.mktemp("reading")
    adapter = save_toy(folder / "adapter")
    numbers = np.random.default_rng(0)
    new = unit(numbers.normal(size=(COUNT, 24)))
    old = unit(adapter.document.apply(new) + 0.1 * numbers.normal(size=(COUNT, 16)))
    with start_migrating(folder, SETTINGS, dims=(16, 24)) as migrating:
        fill(migrating.direct, OLD, old, range(COUNT))
        fill(migrating.direct, TARGET, new, range(0, COUNT, 2))
        migrating.write_sample(new, old, range(0, COUNT, 2))
        yield migrating, adapter, new, old


@pytest.fixture
def migrating(made: tuple[Migrating, Adapter, Float32, Float32]) -> Migrating:
    made[0].move(**HALF)
    return made[0]


class Oracle:
    """The same merge on arrays."""

    def __init__(self, migrating: Migrating, adapter: Adapter, new: Float32, old: Float32) -> None:
        self.adapter, self.new, self.old = adapter, new, old
        folder = sample_folder(load_config(migrating.serving.config))
        kept = read_sample(sample_path(folder, migrating.view.id))
        assert kept is not None
        self.matcher = fit_matcher(kept[0], kept[1])

    def rank(
        self, query: Float32, third: int | None, depth: int, old: Float32 | None = None
    ) -> list[tuple[int, float]]:
        """Every hit in order, with its score on the new index's scale; `old` (16,) asks the old index instead."""
        passing = [row for row in range(COUNT) if third is None or row % 3 == third]
        asked = unit(query[None])
        mapped = unit(self.adapter.query.apply(query[None]) if old is None else old[None])
        true = {row: float(asked[0] @ self.new[row]) for row in passing if row % 2 == 0}
        adapted = sorted(passing, key=lambda row: -float(mapped[0] @ self.old[row]))[: count_candidates(depth)]
        line = self.matcher.match(asked, mapped)
        best = sorted(true, key=lambda row: -true[row])[: depth + MARGIN]
        known = {row: true[row] for row in [*best, *(row for row in adapted if row in true)]}
        scores = {row: float(mapped[0] @ self.old[row]) for row in adapted}
        return merge_scores(known, scores, line)


@pytest.fixture
def oracle(made: tuple[Migrating, Adapter, Float32, Float32], migrating: Migrating) -> Oracle:
    return Oracle(migrating, *made[1:])


def check(points: Any, expected: list[tuple[int, float]], ranked: list[tuple[int, float]] | None = None) -> None:
    """Scores in order, and every hit where its score in `ranked` says; ties and rounding aside."""
    assert len(ids(points)) == len(set(ids(points)))
    np.testing.assert_allclose([point.score for point in points], [score for _, score in expected], atol=2e-5)
    scores = dict(ranked or expected)
    for point in points:
        assert point.score == pytest.approx(scores[point.id], abs=2e-5)


@pytest.mark.parametrize("grpc", [True, False])
def test_filter_limit_offset_and_threshold_hold_in_the_merged_answer(
    grpc: bool, oracle: Oracle, migrating: Migrating
) -> None:
    rng = random.Random(7)
    client = migrating.client(grpc=grpc)
    for _ in range(60):
        query = unit(np.random.default_rng(rng.randrange(1 << 30)).normal(size=(1, 24)))[0]
        third = rng.choice([None, 0, 1, 2])
        limit, offset = rng.choice([1, 5, 10, 60]), rng.choice([0, 0, 3, 40])
        threshold = rng.choice([None, None, 0.1, 0.4, 2.0])
        held = None if third is None else THIRDS[third]
        payload = rng.random() < 0.5
        found = client.query_points(
            OLD, query.tolist(), query_filter=held, limit=limit, offset=offset, score_threshold=threshold,
            with_payload=payload,
        ).points  # fmt: skip
        ranked = oracle.rank(query, third, limit + offset)
        kept = [hit for hit in ranked[: limit + offset] if threshold is None or hit[1] >= threshold]
        check(found, kept[offset:], ranked)
        if payload:
            assert [point.payload for point in found] == [{"row": one, "third": int(one) % 3} for one in ids(found)]


@pytest.mark.parametrize("grpc", [True, False])
def test_a_batch_is_merged_search_by_search(grpc: bool, oracle: Oracle, migrating: Migrating) -> None:
    queries = unit(np.random.default_rng(3).normal(size=(5, 24)))
    requests = [
        m.QueryRequest(query=row.tolist(), limit=4 + at, with_payload=at % 2 == 0) for at, row in enumerate(queries)
    ]
    found = migrating.client(grpc=grpc).query_batch_points(OLD, requests)
    for at, (answer, row) in enumerate(zip(found, queries, strict=True)):
        check(answer.points, oracle.rank(row, None, 4 + at)[: 4 + at])
        assert all(bool(point.payload) == (at % 2 == 0) for point in answer.points)


@pytest.mark.parametrize("grpc", [True, False])
def test_vectors_of_migrated_points_are_the_true_ones_and_of_others_mapped_back(
    grpc: bool, made: tuple[Migrating, Adapter, Float32, Float32], migrating: Migrating
) -> None:
    _, adapter, new, old = made
    client = migrating.client(grpc=grpc)
    found: Any = client.query_points(OLD, new[3].tolist(), limit=40, with_vectors=True).points
    back = adapter.reverse.apply(old)
    assert {point.id % 2 for point in found} == {0, 1}
    for point in found:
        expected = new[point.id] if point.id % 2 == 0 else back[point.id]
        np.testing.assert_allclose(point.vector, expected, atol=1e-5)


def ask_raw(migrating: Migrating, query: Float32, path: str = "points/query", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = {"vector" if path == "points/search" else "query": query.tolist(), "limit": 5}
    return httpx.post(f"{migrating.serving.rest}/collections/docs/{path}", json=body, headers=named)


@pytest.mark.parametrize("path", ["points/query", "points/search"])
def test_a_header_chooses_the_strategy_and_the_mark_says_which_it_was(path: str, migrating: Migrating) -> None:
    query = unit(np.random.default_rng(4).normal(size=(1, 24)))[0]
    marks = {
        strategy: ask_raw(migrating, query, path, x_crossfade_strategy=strategy).headers["x-crossfade"]
        for strategy in ("auto", "adapt", "crossfade", "native")
    }
    assert marks == {
        "auto": "crossfade; model=new; index=old,new; strategy=crossfade",
        "adapt": "adapted; model=new; index=old; strategy=adapt",
        "crossfade": "crossfade; model=new; index=old,new; strategy=crossfade",
        "native": "native; model=new; index=new; strategy=native",
    }
    migrating.move(migrated=0.0)
    assert ask_raw(migrating, query, path).headers["x-crossfade"] == marks["adapt"]
    migrating.move(strategy="native")
    assert ask_raw(migrating, query, path).headers["x-crossfade"] == marks["native"]


@pytest.mark.skipif(filter_module() is None, reason="the filter was not built here: no C compiler at installation")
def test_adapted_reads_take_the_fast_path_as_without_a_migration_and_are_counted(migrating: Migrating) -> None:
    query = unit(np.random.default_rng(4).normal(size=(1, 24)))[0]
    routes = [("crossfade_routed_requests_total", {"route": route}) for route in ("fast", "full")]
    read = ("crossfade_migration_reads_total", {"collection": "docs", "strategy": "adapt"})

    def counted() -> list[float]:
        metrics = migrating.serving.metrics()
        return [sample(metrics, name, **labels) for name, labels in [*routes, read]]

    def check_grown(fast: int, full: int, **headers: str) -> None:
        client = migrating.client(grpc=True, **headers)
        client.query_points("docs", query.tolist(), limit=5)  # the first after a change takes the full route
        time.sleep(1.1)  # until what was asked before has been counted
        before = counted()
        for _ in range(3):  # the first makes a template for the others
            assert client.query_points("docs", query.tolist(), limit=5).points
        grown = [fast, full, fast]
        wait_until(lambda: [now - then for now, then in zip(counted(), before, strict=True)] == grown, 5, f"{grown}")

    check_grown(3, 0, x_crossfade_strategy="adapt")
    check_grown(0, 3)  # merged
    migrating.move(strategy="adapt")
    check_grown(3, 0)


def test_a_strategy_that_is_none_is_refused_with_those_there_are(migrating: Migrating) -> None:
    query = unit(np.random.default_rng(4).normal(size=(1, 24)))[0]
    answer = ask_raw(migrating, query, x_crossfade_strategy="fast")
    assert answer.status_code == 400
    assert "asks for 'fast'; strategies are 'auto', 'adapt', 'crossfade'" in answer.json()["status"]["error"]
    with pytest.raises(RpcError) as refused:
        migrating.client(grpc=True, x_crossfade_strategy="fast").query_points(OLD, query.tolist())
    assert refused.value.code() is StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("grpc", [True, False])
def test_a_greater_share_only_moves_clients_to_the_new_index_and_all_their_reads_follow(
    grpc: bool, migrating: Migrating
) -> None:
    clients = {name: migrating.client(grpc=grpc, x_client_id=name) for name in map(str, range(12))}
    positions = {name: find_position(migrating.view.id, b"client " + name.encode()) for name in clients}
    for percent in (0.0, 30.0, 70.0, 100.0):
        migrating.move(state=State.CANARY if percent else State.SYNCED, percent=percent)
        for name, client in clients.items():
            there = positions[name] < percent
            assert client.count(OLD).count == (COUNT // 2 if there else COUNT)
            assert len(client.scroll(OLD, limit=COUNT)[0]) == (COUNT // 2 if there else COUNT)
            assert len(client.retrieve(OLD, [1, 2])) == (1 if there else 2)
            nearest = client.query_points(OLD, [0.1] * 24, limit=COUNT).points
            assert len(nearest) == (COUNT // 2 if there else COUNT)
    assert 2 < sum(position < 50 for position in positions.values()) < 10  # else the above has shown little


def test_clients_of_this_machine_without_a_name_are_told_apart_by_their_queries(migrating: Migrating) -> None:
    migrating.move(state=State.CANARY, percent=50.0)
    client = migrating.client(grpc=True)
    went = 0
    for row in unit(np.random.default_rng(8).normal(size=(40, 24))):
        native = find_position(migrating.view.id, b"query " + row.tobytes()) < 50
        assert (len(client.query_points(OLD, row.tolist(), limit=COUNT).points) == COUNT // 2) == native
        went += native
    assert 10 < went < 30


@pytest.mark.parametrize("grpc", [True, False])
def test_clients_of_the_old_model_stay_on_the_old_index_and_are_counted(
    grpc: bool, made: tuple[Migrating, Adapter, Float32, Float32], migrating: Migrating
) -> None:
    _, _, _, old = made
    migrating.move(state=State.SWITCHED, percent=100.0, migrated=1.0)
    before = counted(migrating, "old_queries")
    client = migrating.client(grpc=grpc, x_embedding_model="old")
    found = client.query_points(OLD, old[5].tolist(), limit=COUNT).points
    assert len(found) == COUNT
    assert found[0].id == 5
    assert client.count(OLD).count == COUNT
    wait_until(lambda: counted(migrating, "old_queries") == before + 1, 5, "the query is counted")
    assert 'crossfade_migration_old_query_time_seconds{collection="docs",model="old"}' in migrating.serving.metrics()


def counted(migrating: Migrating, name: str, *labels: str) -> float:
    """The sum of a migration's counter over the label sets that have these."""
    lines = [line for line in migrating.serving.metrics().splitlines() if f"crossfade_migration_{name}_total{{" in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines if all(label in line for label in labels))


@pytest.mark.parametrize("grpc", [True, False])
def test_other_requests_are_adapted_until_the_switch_and_native_after_it(
    grpc: bool, made: tuple[Migrating, Adapter, Float32, Float32], migrating: Migrating
) -> None:
    _, _, new, _ = made
    client = migrating.client(grpc=grpc)

    def ask() -> tuple[int, int, int]:
        recommend = m.RecommendQuery(recommend=m.RecommendInput(positive=[new[4].tolist()]))
        groups = client.query_points_groups(OLD, "row", new[4].tolist(), limit=COUNT, group_size=1).groups
        fused = client.query_points(
            OLD, prefetch=[m.Prefetch(query=new[4].tolist(), limit=COUNT)], query=m.FusionQuery(fusion=m.Fusion.RRF),
            limit=COUNT,
        ).points  # fmt: skip
        return len(client.query_points(OLD, recommend, limit=COUNT).points), len(groups), len(fused)

    assert ask() == (COUNT, COUNT, COUNT)
    migrating.move(state=State.SWITCHED, percent=100.0, migrated=1.0)
    assert ask() == (COUNT // 2,) * 3


@pytest.mark.parametrize("grpc", [True, False])
def test_a_target_that_is_not_there_never_fails_a_read(
    grpc: bool, made: tuple[Migrating, Adapter, Float32, Float32], migrating: Migrating
) -> None:
    _, _, new, _ = made
    client = migrating.client(grpc=grpc)
    adapted = migrating.client(grpc=grpc, x_crossfade_strategy="adapt")
    expected = adapted.query_points(OLD, new[4].tolist(), limit=9, with_payload=True)
    before = counted(migrating, "fallbacks", "refused")
    migrating.move(target="nowhere")
    assert client.query_points(OLD, new[4].tolist(), limit=9, with_payload=True) == expected
    assert ask_raw(migrating, new[4]).headers["x-crossfade"] == (
        "adapted; model=new; index=old; strategy=adapt; instead-of=crossfade; because=refused"
    )
    migrating.move(target="nowhere", state=State.SWITCHED, percent=100.0)
    assert client.query_points(OLD, new[4].tolist(), limit=9, with_payload=True) == expected
    assert client.count(OLD).count == COUNT
    assert len(client.scroll(OLD, limit=COUNT)[0]) == COUNT
    wait_until(lambda: counted(migrating, "fallbacks", "refused") == before + 5, 5, "fallbacks are counted")


def test_an_empty_target_leaves_every_hit_to_the_old_index(
    made: tuple[Migrating, Adapter, Float32, Float32], migrating: Migrating
) -> None:
    _, _, new, _ = made
    migrating.direct.create_collection("empty", vectors_config=m.VectorParams(size=24, distance=m.Distance.COSINE))
    migrating.move(target="empty")
    expected = migrating.client(grpc=True, x_crossfade_strategy="adapt").query_points(OLD, new[4].tolist(), limit=9)
    assert ids(migrating.client(grpc=True).query_points(OLD, new[4].tolist(), limit=9).points) == ids(expected.points)
    migrating.direct.delete_collection("empty")


@pytest.mark.parametrize("grpc", [True, False])
def test_a_point_that_was_deleted_or_changed_in_the_old_index_is_not_shown_as_it_was(
    grpc: bool, made: tuple[Migrating, Adapter, Float32, Float32], migrating: Migrating
) -> None:
    _, _, new, old = made
    client = migrating.client(grpc=grpc)
    migrating.direct.delete(OLD, [6], wait=True)  # the target still has it
    migrating.direct.set_payload(OLD, {"third": 99}, [12], wait=True)
    shown = client.query_points(OLD, new[6].tolist(), query_filter=THIRDS[0], limit=COUNT, with_payload=True).points
    assert not {6, 12} & set(ids(shown))
    assert 18 in ids(shown)
    fill(migrating.direct, OLD, old, [6, 12])


@pytest.mark.parametrize("grpc", [True, False])
def test_once_completed_the_name_stands_for_the_target(
    grpc: bool, made: tuple[Migrating, Adapter, Float32, Float32], migrating: Migrating
) -> None:
    _, adapter, new, old = made
    migrating.move(state=State.COMPLETED, percent=100.0, migrated=1.0)
    client, former = migrating.client(grpc=grpc), migrating.client(grpc=grpc, x_embedding_model="old")
    point = 1000 + grpc
    client.upsert(OLD, [m.PointStruct(id=point, vector=new[1].tolist(), payload={"row": 1})], wait=True)
    client.set_payload(OLD, {"seen": True}, [point], wait=True)
    stored: Any = migrating.direct.retrieve(TARGET, [point], with_vectors=True, with_payload=True)[0]
    np.testing.assert_allclose(stored.vector, new[1], atol=1e-6)
    assert stored.payload == {"row": 1, "seen": True}
    assert not migrating.direct.retrieve(OLD, [point])
    assert client.query_points(OLD, new[1].tolist(), limit=1).points[0].id == point
    back = adapter.reverse.apply(old[8:9])[0]
    expected = migrating.direct.query_points(TARGET, back.tolist(), limit=5).points
    assert ids(former.query_points(OLD, old[8].tolist(), limit=5).points) == ids(expected)
    shown: Any = former.query_points(OLD, old[8].tolist(), limit=1, with_vectors=True).points[0]
    np.testing.assert_allclose(shown.vector, adapter.document.apply(new[shown.id : shown.id + 1])[0], atol=1e-5)
    assert client.get_collection(OLD).config.params.vectors.size == 24  # type: ignore[union-attr]
    client.delete(OLD, [point], wait=True)
    assert not migrating.direct.retrieve(TARGET, [point])


def test_reverse_loses_nothing_of_what_is_read(migrating: Migrating) -> None:
    client = migrating.client(grpc=True, x_client_id="somebody")
    before = client.query_points(OLD, [0.1] * 24, limit=20, with_payload=True)
    migrating.move(state=State.SWITCHED, percent=100.0, migrated=1.0)
    assert client.count(OLD).count == COUNT // 2
    migrating.move(state=State.SYNCED, percent=0.0, migrated=0.5)
    assert client.count(OLD).count == COUNT
    assert client.query_points(OLD, [0.1] * 24, limit=20, with_payload=True) == before


def test_shadow_queries_compare_what_was_answered_with_the_target(
    made: tuple[Migrating, Adapter, Float32, Float32], migrating: Migrating
) -> None:
    _, _, new, _ = made
    migrating.move(shadow=100.0)
    before, overlap = counted(migrating, "shadows", "compared"), counted(migrating, "shadow_overlap")
    expected = 0.0
    for grpc in (True, False):
        for query in new[:4]:
            found = ids(migrating.client(grpc=grpc).query_points(OLD, query.tolist(), limit=10).points)
            there = ids(migrating.direct.query_points(TARGET, query.tolist(), limit=10).points)
            expected += len(set(found) & set(there)) / 10
    wait_until(lambda: counted(migrating, "shadows", "compared") == before + 8, 10, "all are compared")
    assert counted(migrating, "shadow_overlap") - overlap == pytest.approx(expected)
    failed = counted(migrating, "shadows", "failed")
    migrating.move(target="nowhere")
    migrating.client(grpc=True).query_points(OLD, new[4].tolist(), limit=10)
    wait_until(lambda: counted(migrating, "shadows", "failed") == failed + 1, 10, "a failure is counted")


def test_texts_are_encoded_by_the_old_model_where_that_is_asked_for(oracle: Oracle, migrating: Migrating) -> None:
    document = m.Document(text="some words", model="new")
    alone, asked = encode_old(["some words"], "query"), encode_one("some words", "query")[None]
    mapped = oracle.adapter.query.apply(asked)

    def both(migrated: float) -> Float32:
        """As both models ask the old index, the old one's length kept."""
        weight = usual_weights(migrated, texts=True).adapted
        blended: Float32 = (blend_queries(alone, mapped, weight) * np.linalg.norm(alone))[0]
        return blended

    migrating.move(migrated=0.0)
    expected = migrating.direct.query_points(OLD, both(0.0).tolist(), limit=10).points
    found = raw_query(migrating, document, "legacy-encode")
    assert [hit["id"] for hit in found.json()["result"]["points"]] == ids(expected)
    assert found.headers["x-crossfade"] == "encoded; model=old; index=old; strategy=legacy-encode"
    migrating.move(migrated=0.5)
    merged = raw_query(migrating, document, "legacy-encode")
    assert merged.headers["x-crossfade"] == "crossfade; model=new; index=old,new; strategy=legacy-crossfade"
    expected_hits = oracle.rank(asked[0], None, 10, both(0.5))[:10]
    assert [hit["id"] for hit in merged.json()["result"]["points"]] == [row for row, _ in expected_hits]


def raw_query(migrating: Migrating, document: m.Document, strategy: str) -> httpx.Response:
    body = {"query": {"text": document.text, "model": document.model}, "limit": 10}
    url = f"{migrating.serving.rest}/collections/docs/points/query"
    answer = httpx.post(url, json=body, headers={"x-crossfade-strategy": strategy})
    assert answer.status_code == 200, answer.text
    return answer
