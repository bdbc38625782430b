"""Hits of two Milvus collections put into one answer, through a running Crossfade, against what arrays say."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
from pymilvus import CollectionSchema, DataType, MilvusClient
from pymilvus.client.prepare import Prepare
from pymilvus.grpc_gen import milvus_pb2
from qdrant_client import QdrantClient

from crossfade.adapters.base import Adapter
from crossfade.adapters.merge import fit_matcher
from crossfade.backends.dialect import Float32
from crossfade.backends.index import Distance
from crossfade.proxy.loading import load_config
from crossfade.proxy.merging import MARGIN, count_candidates
from crossfade.proxy.migration.machine import State
from crossfade.proxy.migration.sample import read_sample, sample_folder, sample_path
from tests.ports import free_ports
from tests.proxy.merged_scores import merge_scores
from tests.proxy.migrating import OLD, Migrating, first_view, unit
from tests.proxy.milvus_serving import SERVICE, MilvusServing, start_embedded, start_milvus_serving
from tests.proxy.serving import wait_until
from tests.proxy.test_reading import counted
from tests.proxy.toy_adapters import save_toy

COUNT, THERE = 150, "docs__new"
SETTINGS = """
models: {old: {dim: 16}, new: {dim: 24}}
collections: {docs: {index_model: old, query_model: new, adapters: {new: adapter}}}
"""
FIELDS = ["title", "n", "flag", "ratio", "numbers", "extra", "loose"]


class Case(NamedTuple):
    """Which server, how it compares vectors, and what its keys are."""

    server: str
    metric: str
    text_ids: bool


CASES = [
    Case("lite", "COSINE", False),
    Case("lite", "L2", False),
    Case("lite", "IP", True),
    Case("real", "L2", True),
]


@dataclass
class Made:
    """A running Crossfade with half of the rows in the target: those with even numbers."""

    case: Case
    serving: MilvusServing
    direct_address: str
    direct: MilvusClient
    migrating: Migrating
    adapter: Adapter
    new: Float32
    old: Float32

    @property
    def client(self) -> MilvusClient:
        return MilvusClient(self.serving.uri)

    def key(self, row: int) -> Any:
        return f"no. {row}" if self.case.text_ids else row

    def row(self, key: Any) -> int:
        return int(key.removeprefix("no. ")) if self.case.text_ids else int(key)

    def score(self, similarity: float) -> float:
        return 2 - 2 * similarity if self.case.metric == "L2" else similarity

    def rank(self, query: Float32, passing: list[int], depth: int) -> list[tuple[int, float]]:
        """The merge on arrays: every row in order, with its score as Milvus gives it."""
        kept = read_sample(
            sample_path(sample_folder(load_config(self.migrating.serving.config)), self.migrating.view.id)
        )
        assert kept is not None
        mapped = unit(self.adapter.query.apply(query[None]))
        true = {row: float(query @ self.new[row]) for row in passing if row % 2 == 0}
        adapted = sorted(passing, key=lambda row: -float(mapped[0] @ self.old[row]))[: count_candidates(depth)]
        line = fit_matcher(kept[0], kept[1]).match(query[None], mapped)
        best = sorted(true, key=lambda row: -true[row])[: depth + MARGIN]
        known = {row: true[row] for row in [*best, *(row for row in adapted if row in true)]}
        scores = {row: float(mapped[0] @ self.old[row]) for row in adapted}
        return [(row, self.score(score)) for row, score in merge_scores(known, scores, line)]


def schema_of(case: Case, dim: int) -> CollectionSchema:
    schema = MilvusClient.create_schema(enable_dynamic_field=True)
    schema.add_field("pk", DataType.VARCHAR if case.text_ids else DataType.INT64, is_primary=True, max_length=20)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
    schema.add_field("title", DataType.VARCHAR, max_length=200)
    schema.add_field("n", DataType.INT64)
    schema.add_field("third", DataType.INT32)
    schema.add_field("flag", DataType.BOOL)
    schema.add_field("ratio", DataType.DOUBLE)
    schema.add_field("numbers", DataType.ARRAY, element_type=DataType.INT64, max_capacity=5)
    schema.add_field("extra", DataType.JSON)
    return schema


def entity(made: Made, row: int, vectors: Float32) -> dict[str, Any]:
    """What is stored of a row."""
    return {
        "pk": made.key(row), "vector": vectors[row].tolist(), "title": f"é {row}" * (row % 3), "n": row,
        "third": row % 3,
        "flag": row % 2 == 0, "ratio": row / 7, "numbers": list(range(row % 4)), "extra": {"a": [row, None]},
        "loose": {"b": row},
    }  # fmt: skip


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case.server}-{case.metric}")
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    folder, case = tmp_path_factory.mktemp("crossfade"), request.param
    if case.server == "real":
        yield from make(folder, case, request.getfixturevalue("real_milvus"))
        return
    pytest.importorskip("milvus_lite")
    (port,) = free_ports(1)
    with start_embedded(folder / "data", port):
        yield from make(folder, case, f"127.0.0.1:{port}")


def make(folder: Path, case: Case, address: str) -> Iterator[Made]:
    adapter = save_toy(folder / "adapter")
    numbers = np.random.default_rng(0)
    new = unit(numbers.normal(size=(COUNT, 24)))
    old = unit(adapter.document.apply(new) + 0.1 * numbers.normal(size=(COUNT, 16)))
    direct = MilvusClient(f"http://{address}")
    with start_milvus_serving(folder, f'grpc: "{address}"', SETTINGS) as serving:
        migrating = Migrating(serving, QdrantClient(":memory:"), first_view(target=THERE, field="vector"))
        distances: dict[str, Distance] = {"COSINE": "cosine", "IP": "dot", "L2": "euclid"}
        migrating.write_sample(new, old, range(0, COUNT, 2), distances[case.metric])
        made = Made(case, serving, address, direct, migrating, adapter, new, old)
        for name, vectors, step in ((OLD, old, 1), (THERE, new, 2)):
            index = direct.prepare_index_params()
            index.add_index("vector", index_type="FLAT", metric_type=case.metric)
            direct.drop_collection(name)
            direct.create_collection(
                name, schema=schema_of(case, vectors.shape[1]), index_params=index, consistency_level="Strong"
            )
            direct.insert(name, [entity(made, row, vectors) for row in range(0, COUNT, step)])
        yield made
        for name in (OLD, THERE):
            direct.drop_collection(name)


@pytest.fixture
def migrating(made: Made) -> Migrating:
    made.migrating.move(state=State.BACKFILLING, percent=0.0, migrated=0.5, strategy="auto", shadow=0.0, target=THERE)
    return made.migrating


def queries(seed: int, count: int) -> Float32:
    return unit(np.random.default_rng(seed).normal(size=(count, 24)))


def key_of(hit: Any) -> Any:
    """A hit's key, which pymilvus calls id where the server does not say what it is called."""
    return dict(hit).get("pk", dict(hit).get("id"))


def check(made: Made, hits: Any, ranked: list[tuple[int, float]], offset: int, limit: int) -> None:
    """Scores in order, and every hit where its score says; ties and rounding aside."""
    rows = [made.row(key_of(hit)) for hit in hits]
    assert len(rows) == len(set(rows))
    expected = [score for _, score in ranked[offset : offset + limit]]
    np.testing.assert_allclose([hit["distance"] for hit in hits], expected, atol=5e-5)
    scores = dict(ranked)
    for row, hit in zip(rows, hits, strict=True):
        assert hit["distance"] == pytest.approx(scores[row], abs=5e-5)


def test_filter_limit_and_offset_hold_in_the_merged_answer_of_one_query_or_many(
    made: Made, migrating: Migrating
) -> None:
    rng = random.Random(7)
    before = counted(migrating, "reads", 'strategy="crossfade"')
    asked = 0
    for _ in range(12):
        rows, third = queries(rng.randrange(1 << 30), rng.choice([1, 1, 4])), rng.choice([None, 0, 1, 2])
        limit, offset = rng.choice([1, 5, 10, 60]), rng.choice([0, 0, 3, 40])
        fields = rng.choice([[], ["n"], FIELDS])
        found = made.client.search(
            OLD, rows.tolist(), filter="" if third is None else f"third == {third}", limit=limit, offset=offset,
            output_fields=fields or None, search_params={"params": {"ef": 3}},
        )  # fmt: skip
        passing = [row for row in range(COUNT) if third is None or row % 3 == third]
        for row, hits in zip(rows, found, strict=True):
            check(made, hits, made.rank(row, passing, limit + offset), offset, limit)
        asked += 1
    wait_until(lambda: counted(migrating, "reads", 'strategy="crossfade"') == before + asked, 5, "they are merged")
    assert not counted(migrating, "fallbacks")


@pytest.mark.parametrize("fields", [[], ["n"], ["pk"], ["loose"], FIELDS, ["*"], ["vector", "title"]])
def test_each_hit_is_shown_as_milvus_itself_shows_it(fields: list[str], made: Made, migrating: Migrating) -> None:
    rows = queries(3, 2)
    for hits in made.client.search(OLD, rows.tolist(), limit=20, output_fields=fields or None):
        assert {made.row(key_of(hit)) % 2 for hit in hits} == {0, 1}
        for hit in hits:
            row = made.row(key_of(hit))
            asked = f"n == {row}"
            (own,) = made.direct.search(OLD, [made.old[row].tolist()], filter=asked, limit=1, output_fields=fields)
            shown, expected = dict(hit["entity"]), dict(own[0]["entity"])
            if "*" in fields or "vector" in fields:
                true = made.new[row] if row % 2 == 0 else made.adapter.reverse.apply(made.old[row : row + 1])[0]
                np.testing.assert_allclose(shown.pop("vector"), true, atol=1e-5)
            expected.pop("vector", None)
            if fields:  # milvus-lite shows every field where none is named, Milvus none
                assert shown == expected
            else:
                assert not shown


def test_the_answer_names_its_columns_and_its_key_as_milvus_does(made: Made, migrating: Migrating) -> None:
    message = request(made, ["title", "n"])
    mine, _ = ask(made, message)
    message = request(made, ["title", "n"], made.old[0])
    theirs = milvus_pb2.SearchResults.FromString(call(made, message, made.direct_address)[0])
    assert sorted(mine.results.output_fields) == sorted(theirs.results.output_fields)
    for name in ("num_queries", "primary_field_name", "topks"):
        assert getattr(mine.results, name) == getattr(theirs.results, name)
    kinds = [
        [(one.type, one.field_name, one.is_dynamic) for one in answer.results.fields_data] for answer in (mine, theirs)
    ]
    assert sorted(kinds[0]) == sorted(kinds[1])


def request(made: Made, fields: list[str], vector: Float32 | None = None, **more: Any) -> Any:
    """What pymilvus sends, to be changed."""
    vector = queries(4, 1)[0] if vector is None else vector
    return Prepare.search_requests_with_expr(
        OLD, "vector", {"metric_type": made.case.metric}, 5, [vector.tolist()], output_fields=fields,
        consistency_level=0, use_default_consistency=False, **more,
    )  # fmt: skip


def call(made: Made, message: Any, address: str, **metadata: str) -> tuple[bytes, str]:
    """The answer to a Search and Crossfade's mark."""
    with made.serving.open_channel(int(address.rpartition(":")[2])) as channel:
        search = channel.unary_unary(f"{SERVICE}/Search", bytes, bytes)
        given = tuple((name.replace("_", "-"), value) for name, value in metadata.items())
        body, told = search.with_call(message.SerializeToString(), metadata=given, timeout=30)
        marks = dict(told.initial_metadata()) | dict(told.trailing_metadata())
        return body, str(marks.get("x-crossfade", ""))


def ask(made: Made, message: Any, **metadata: str) -> tuple[Any, str]:
    body, mark = call(made, message, made.serving.uri, **metadata)
    answer = milvus_pb2.SearchResults.FromString(body)
    assert answer.status.code == answer.status.error_code == 0, answer.status
    return answer, mark


def test_the_mark_says_how_it_was_found_and_a_header_chooses(made: Made, migrating: Migrating) -> None:
    marks = {
        strategy: ask(made, request(made, ["n"]), x_crossfade_strategy=strategy)[1]
        for strategy in ("auto", "adapt", "crossfade", "native")
    }
    assert marks == {
        "auto": "crossfade; model=new; index=old,new; strategy=crossfade",
        "adapt": "adapted; model=new; index=old; strategy=adapt",
        "crossfade": "crossfade; model=new; index=old,new; strategy=crossfade",
        "native": "native; model=new; index=new; strategy=native",
    }


def test_searches_that_are_not_plain_are_adapted_and_say_so(made: Made, migrating: Migrating) -> None:
    ranged = request(made, [], None)
    params = next(pair for pair in ranged.search_params if pair.key == "params")
    params.value = '{"radius": 100.0}' if made.case.metric == "L2" else '{"radius": -100.0}'
    others = [ranged, request(made, [], iterator=True)]
    if made.case.server == "lite":  # 2.3.5 groups by no field that has these rows
        others.append(request(made, ["n"], group_by_field="n"))
    for message in others:
        answer, mark = ask(made, message)
        assert mark == "adapted; model=new; index=old; strategy=adapt"
        assert answer.results.topks[0] > 0


def test_an_iterator_gives_every_row_once(made: Made, migrating: Migrating) -> None:
    if made.case.server == "real":
        pytest.skip("pymilvus's iterators ask for methods that 2.3.5 does not have")
    iterator = made.client.search_iterator(OLD, queries(4, 1).tolist(), batch_size=40, output_fields=["n"])
    found = []
    while page := iterator.next():
        found += [hit["n"] for hit in page]
    assert sorted(found) == list(range(COUNT))


def test_with_everything_there_hits_and_scores_are_the_new_models_own(made: Made, migrating: Migrating) -> None:
    missing = [entity(made, row, made.new) for row in range(1, COUNT, 2)]
    made.direct.insert(THERE, missing)
    migrating.move(migrated=1.0)
    rows = queries(9, 4)
    mine = made.client.search(OLD, rows.tolist(), limit=10, output_fields=["n"])
    own = made.direct.search(THERE, rows.tolist(), limit=10, output_fields=["n"])
    for found, expected in zip(mine, own, strict=True):
        assert [key_of(hit) for hit in found] == [key_of(hit) for hit in expected]
        np.testing.assert_allclose([hit["distance"] for hit in found], [hit["distance"] for hit in expected], atol=1e-5)
    made.direct.delete(THERE, ids=[made.key(row) for row in range(1, COUNT, 2)])


def test_a_target_that_is_not_there_never_fails_a_search(made: Made, migrating: Migrating) -> None:
    message = request(made, ["n"])
    expected = ask(made, message, x_crossfade_strategy="adapt")[0].results
    migrating.move(target="nowhere")
    answer, mark = ask(made, message)
    assert answer.results == expected
    assert mark == "adapted; model=new; index=old; strategy=adapt; instead-of=crossfade; because=refused"
    bad = request(made, ["nothing"])
    bad.dsl = "no expression at all ="
    assert milvus_pb2.SearchResults.FromString(call(made, bad, made.serving.uri)[0]).status.reason


def test_a_row_that_was_deleted_or_changed_in_the_old_collection_is_not_shown_as_it_was(
    made: Made, migrating: Migrating
) -> None:
    made.direct.delete(OLD, ids=[made.key(6)])  # the target still has it
    changed = {**entity(made, 12, made.old), "third": 1, "title": "changed"}
    made.direct.upsert(OLD, [changed])
    (shown,) = made.client.search(OLD, [made.new[6].tolist()], filter="third == 0", limit=COUNT, output_fields=["n"])
    rows = [made.row(key_of(hit)) for hit in shown]
    assert not {6, 12} & set(rows)
    assert 18 in rows
    for row in (6, 12):
        made.direct.upsert(OLD, [entity(made, row, made.old)])


def test_scores_are_rounded_as_the_client_wants_them(made: Made, migrating: Migrating) -> None:
    exact, rounded = (ask(made, request(made, [], round_decimal=decimals))[0].results for decimals in (-1, 2))
    assert list(exact.ids.SerializeToString()) == list(rounded.ids.SerializeToString())
    np.testing.assert_allclose(rounded.scores, [round(one, 2) for one in exact.scores], atol=1e-6)


def test_shadow_queries_compare_what_was_answered_with_the_target(made: Made, migrating: Migrating) -> None:
    migrating.move(shadow=100.0)
    before, overlap = counted(migrating, "shadows", "compared"), counted(migrating, "shadow_overlap")
    expected = 0.0
    for query in made.new[:4]:
        mine, own = (
            {key_of(hit) for hit in client.search(name, [query.tolist()], limit=10)[0]}
            for client, name in ((made.client, OLD), (made.direct, THERE))
        )
        expected += len(mine & own) / 10
    wait_until(lambda: counted(migrating, "shadows", "compared") == before + 4, 10, "all are compared")
    assert counted(migrating, "shadow_overlap") - overlap == pytest.approx(expected)


def test_rest_searches_are_merged_too(made: Made, migrating: Migrating) -> None:
    if made.case.server == "lite":
        pytest.skip("milvus-lite has no REST")
    query = queries(5, 1)[0]
    body = {"collectionName": OLD, "vector": query.tolist(), "limit": 7, "offset": 2, "outputFields": ["n", "title"],
            "filter": "third == 1"}  # fmt: skip
    answer = httpx.post(f"{made.serving.uri}/v1/vector/search", json=body, timeout=30)
    assert answer.headers["x-crossfade"] == "crossfade; model=new; index=old,new; strategy=crossfade", answer.text
    rows = answer.json()["data"]
    ranked = made.rank(query, [row for row in range(COUNT) if row % 3 == 1], 9)
    check(made, [{**row, "pk": made.key(row["n"])} for row in rows], ranked, 2, 7)
    assert all(row["title"] == f"é {row['n']}" for row in rows)  # int64 as text, as 2.3.5 writes it
    ungiven = httpx.post(f"{made.serving.uri}/v1/vector/search", json={**body, "outputFields": []}, timeout=30)
    assert [row["distance"] for row in ungiven.json()["data"]] == [row["distance"] for row in rows]
