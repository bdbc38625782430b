"""Plain searches taken apart and asked otherwise, and the hits of two answers formed into one."""

from __future__ import annotations

import json
import random
import struct
from typing import Any

import numpy as np
import pytest
import qdrant_client.grpc as grpc
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfade.backends.dialect import MalformedError, Message, Operation, TextSlot, VectorSlot
from crossfade.backends.qdrant import QdrantDialect
from crossfade.backends.qdrant.reading import QdrantReading
from crossfade.backends.reading import Asking, Hit, Search
from tests.backends.qdrant_scramble import scramble

DIALECT, READING = QdrantDialect(), QdrantReading()
UUID = "6b2e7c58-4c21-4d4e-9d5a-0a5b3c2d1e0f"
IDS: list[int | str] = [7, UUID, 2**63 + 1, 0]
SEEDS = st.integers(0, 2**32)
NAMES = st.sampled_from(["Search", "SearchBatch", "Query", "QueryBatch"])
TAILS = {"Search": "search", "SearchBatch": "search/batch", "Query": "query", "QueryBatch": "query/batch"}


def operation_of(transport: Any, name: str) -> Operation:
    path = f"/qdrant.Points/{name}" if transport == "grpc" else f"/collections/docs/points/{TAILS[name]}"
    found = DIALECT.find_operation(transport, "POST", path)
    assert found is not None
    return found


def read(transport: Any, name: str, body: bytes) -> tuple[Operation, Message]:
    operation = operation_of(transport, name)
    return operation, DIALECT.read_request(operation, "/collections/docs/points", body)


ASKED = read("grpc", "Query", b"")[1]  # what a request said does not matter to its answer


def searches_of(transport: Any, name: str, body: bytes) -> list[Search] | None:
    operation, request = read(transport, name, body)
    found = READING.find_searches(operation, request)
    return None if found is None else list(found)


def plain_search(rng: random.Random, name: str) -> Any:
    """A random SearchPoints or QueryPoints for the points nearest to one vector or text."""
    one: Any
    if name.startswith("Search"):
        one = grpc.SearchPoints(collection_name="docs", vector=[rng.gauss(0, 1) for _ in range(3)])
    else:
        one = grpc.QueryPoints(collection_name="docs")
        nearest = one.query.nearest
        if rng.random() < 0.3:
            nearest.document.text, nearest.document.model = "some words", "e5"
        else:
            nearest.dense.data.extend([rng.gauss(0, 1) for _ in range(3)])
    one.limit = rng.randint(1, 300)
    if rng.random() < 0.5:
        one.offset = rng.randint(1, 20)
    if rng.random() < 0.5:
        one.score_threshold = rng.random()
    if rng.random() < 0.5:
        one.filter.must.add().field.key = "colour"
    if rng.random() < 0.5:
        one.with_payload.enable = rng.random() < 0.5
    elif rng.random() < 0.5:
        one.with_payload.include.fields.append("a")
    if rng.random() < 0.5:
        one.with_vectors.enable = rng.random() < 0.5
    if rng.random() < 0.5:
        one.params.hnsw_ef = 77
    if rng.random() < 0.5:
        one.shard_key_selector.shard_keys.add().keyword = "eu"
    return one


def request_of(rng: random.Random, name: str) -> tuple[Any, list[Any]]:
    if not name.endswith("Batch"):
        one = plain_search(rng, name)
        return one, [one]
    searches = [plain_search(rng, name) for _ in range(rng.randint(1, 4))]
    field = "search_points" if name == "SearchBatch" else "query_points"
    message = getattr(grpc, f"{name}Points")(collection_name="docs", timeout=9, **{field: searches})
    return message, list(getattr(message, field))


def asked_otherwise(rng: random.Random, searches: list[Search]) -> list[tuple[Search, Asking]]:
    kept = searches if len(searches) == 1 else [one for one in searches if rng.random() < 0.7] or searches[:1]
    return [
        (
            one,
            Asking(
                np.array([rng.random() for _ in range(5)], np.float32),
                rng.randint(1, 300),
                rng.choice([None, IDS]),
                rng.random() < 0.5,
                rng.random() < 0.5,
            ),
        )
        for one in kept
    ]


def expect_grpc(message: Any, name: str, asking: Asking) -> None:
    """Change a search as `form_searches` shall."""
    if name.startswith("Search"):
        del message.vector[:]
        message.vector.extend(asking.vector.tolist())
    else:
        message.query.nearest.dense.data[:] = asking.vector.tolist()
    message.limit = asking.limit
    for field in ("offset", "score_threshold", *(("with_payload", "with_vectors") if asking.bare else ())):
        message.ClearField(field)
    if asking.among is not None:
        kept = type(message.filter).FromString(message.filter.SerializeToString())
        message.ClearField("filter")
        condition = message.filter.must.add()
        for point in asking.among:
            condition.has_id.has_id.add(**{"uuid" if isinstance(point, str) else "num": point})
        if asking.narrow and kept.ListFields():
            message.filter.must.add().filter.CopyFrom(kept)


@settings(max_examples=80, deadline=None)
@given(name=NAMES, seed=SEEDS)
def test_grpc_searches_are_asked_otherwise_and_everything_else_stays(name: str, seed: int) -> None:
    rng = random.Random(seed)
    message, items = request_of(rng, name)
    operation, request = read("grpc", name, scramble(message, rng))
    searches = READING.find_searches(operation, request)
    assert searches is not None
    for one, item in zip(searches, items, strict=True):
        assert (one.limit, one.offset) == (item.limit, item.offset)
        assert one.threshold == (item.score_threshold if item.HasField("score_threshold") else None)
        payload = item.with_payload
        assert one.wants_payload == (payload.enable or payload.HasField("include"))
        assert one.wants_vectors == item.with_vectors.enable
        assert one.slot in request.slots
    asked = asked_otherwise(rng, list(searches))
    found = type(message)()
    found.ParseFromString(READING.form_searches(operation, request, asked))
    wanted = {one.place: asking for one, asking in asked}
    expected = type(message)()
    expected.ParseFromString(request.edited([]))
    field = {"SearchBatch": "search_points", "QueryBatch": "query_points"}.get(name)
    levels = [expected] if field is None else list(getattr(expected, field))
    for index, level in enumerate(levels):
        if index in wanted:
            expect_grpc(level, name, wanted[index])
    if field is not None:
        kept = [level for index, level in enumerate(levels) if index in wanted]
        remaining = [type(level).FromString(level.SerializeToString()) for level in kept]
        expected.ClearField(field)
        getattr(expected, field).extend(remaining)
    assert found == expected


def rest_search(rng: random.Random, name: str) -> dict[str, Any]:
    vector = [rng.random() for _ in range(3)]
    if name.startswith("Search"):
        one: dict[str, Any] = {"vector": rng.choice([vector, {"name": "a", "vector": vector}]), "limit": 4}
    else:
        text = {"text": "some words", "model": "e5"}
        one = {"query": rng.choice([vector, {"nearest": vector}, text, {"nearest": text}])}
    choices: dict[str, list[Any]] = {
        "limit": [1, 300],
        "offset": [None, 0, 3],
        "score_threshold": [None, 0.25],
        "filter": [None, {"must": [{"key": "a", "match": {"value": "b"}}]}],
        "with_payload": [None, True, False, ["a"], {"exclude": ["a"]}],
        "with_vector": [True, False, ["a"]],
        "params": [None, {"hnsw_ef": 77}],
        "unknown": [{"big": 12345678901234567890.10}],
    }
    for key, values in choices.items():
        if rng.random() < 0.6:
            one[key] = rng.choice(values)
    return one


def expect_rest(one: dict[str, Any], asking: Asking) -> dict[str, Any]:
    changed: dict[str, Any] = {"limit": asking.limit}
    for key in ("offset", "score_threshold"):
        if key in one:
            changed[key] = None
    if asking.bare:
        changed |= {key: False for key in ("with_payload", "with_vector") if key in one}
    if asking.among is not None:
        kept = [one["filter"]] if asking.narrow and one.get("filter") else []
        changed["filter"] = {"must": [{"has_id": list(asking.among)}, *kept]}
    vector = [float(number) for number in asking.vector]
    expected = {**one, **changed}
    key = "vector" if "vector" in one else "query"
    if isinstance(one[key], dict) and not {"text"} & one[key].keys():
        inner = "nearest" if key == "query" else "vector"
        return expected | {key: {**one[key], inner: vector}}
    return expected | {key: vector}


@settings(max_examples=80, deadline=None)
@given(name=NAMES, seed=SEEDS)
def test_rest_searches_are_asked_otherwise_and_everything_else_stays(name: str, seed: int) -> None:
    rng = random.Random(seed)
    items = [rest_search(rng, name) for _ in range(rng.randint(1, 4) if name.endswith("Batch") else 1)]
    body = {"searches": items, "x": 1.10} if name.endswith("Batch") else items[0]
    operation, request = read("rest", name, json.dumps(body, indent=rng.choice([None, 1])).encode())
    searches = READING.find_searches(operation, request)
    assert searches is not None
    for one, item in zip(searches, items, strict=True):
        assert (one.limit, one.offset) == (item.get("limit", 10), item.get("offset") or 0)
        assert one.threshold == item.get("score_threshold")
        assert one.wants_payload == bool(item.get("with_payload"))
        assert one.wants_vectors == bool(item.get("with_vector"))
    asked = asked_otherwise(rng, list(searches))
    found = json.loads(READING.form_searches(operation, request, asked))
    wanted = {one.place: asking for one, asking in asked}
    expected = [expect_rest(item, wanted[index]) for index, item in enumerate(items) if index in wanted]
    assert round_floats(found) == round_floats(
        {"searches": expected, "x": 1.10} if name.endswith("Batch") else expected[0]
    )


def round_floats(value: Any) -> Any:
    """Numbers as float32, since that is what vectors are written as."""
    return json.loads(json.dumps(value), parse_float=lambda text: float(np.float32(float(text))))


GRPC_OTHERWISE: list[tuple[str, Any]] = [
    ("Query", grpc.QueryPoints(limit=3)),
    ("Query", grpc.QueryPoints(query=grpc.Query(nearest=grpc.VectorInput(id=grpc.PointId(num=3))))),
    ("Query", grpc.QueryPoints(query=grpc.Query(sample=grpc.Sample.Random))),
    (
        "Query",
        grpc.QueryPoints(
            prefetch=[grpc.PrefetchQuery()],
            query=grpc.Query(nearest=grpc.VectorInput(dense=grpc.DenseVector(data=[1.0]))),
        ),
    ),
    (
        "Query",
        grpc.QueryPoints(
            query=grpc.Query(
                nearest_with_mmr=grpc.NearestInputWithMmr(
                    nearest=grpc.VectorInput(dense=grpc.DenseVector(data=[1.0])), mmr=grpc.Mmr()
                )
            )
        ),
    ),
    (
        "Query",
        grpc.QueryPoints(
            query=grpc.Query(recommend=grpc.RecommendInput(positive=[{"dense": {"data": [1.0]}}]))  # type: ignore[list-item]
        ),
    ),
    ("Search", grpc.SearchPoints(vector=[1.0], sparse_indices=grpc.SparseIndices(data=[3]), limit=3)),
    ("Search", grpc.SearchPoints(vector=[1.0])),
    ("SearchGroups", grpc.SearchPointGroups(vector=[1.0], limit=3)),
    ("Scroll", grpc.ScrollPoints()),
]
REST_OTHERWISE: list[tuple[str, Any]] = [
    ("Query", {"limit": 3}),
    ("Query", {"query": 7}),
    ("Query", {"query": UUID}),
    ("Query", {"query": {"fusion": "rrf"}, "prefetch": [{"query": [1.0]}]}),
    ("Query", {"query": [1.0], "prefetch": {"query": [2.0]}}),
    ("Query", {"query": {"nearest": [1.0], "mmr": {"diversity": 0.5}}}),
    ("Query", {"query": {"recommend": {"positive": [[1.0]]}}}),
    ("Query", {"query": {"indices": [1], "values": [1.0]}}),
    ("Query", {"query": [[1.0], [2.0]]}),
    ("Query", {"query": [1.0], "limit": "many"}),
    ("Search", {"vector": {"name": "s", "vector": {"indices": [1], "values": [1.0]}}, "limit": 3}),
    ("Search", {"vector": [1.0]}),
]


@pytest.mark.parametrize(("name", "message"), GRPC_OTHERWISE)
def test_other_grpc_requests_are_not_plain_searches(name: str, message: Any) -> None:
    assert searches_of("grpc", name, message.SerializeToString()) is None


@pytest.mark.parametrize(("name", "body"), REST_OTHERWISE)
def test_other_rest_requests_are_not_plain_searches(name: str, body: Any) -> None:
    assert searches_of("rest", name, json.dumps(body).encode()) is None


def test_a_batch_with_one_other_search_among_plain_ones_is_not_taken_apart() -> None:
    body = json.dumps({"searches": [{"query": [1.0]}, {"query": 3}]}).encode()
    assert searches_of("rest", "QueryBatch", body) is None
    assert len(searches_of("rest", "QueryBatch", body.replace(b'{"query": 3}', b'{"query": [2.0]}')) or ()) == 2


def test_texts_and_vectors_keep_their_slots() -> None:
    body = json.dumps({"searches": [{"query": [1.0]}, {"query": {"text": "a", "model": "m"}}]}).encode()
    found = searches_of("rest", "QueryBatch", body)
    assert found is not None
    assert [type(one.slot) for one in found] == [VectorSlot, TextSlot]


def scored(rng: random.Random, point: Any) -> Any:
    identity = {"uuid" if isinstance(point, str) else "num": point}
    hit = grpc.ScoredPoint(id=grpc.PointId(**identity), score=rng.choice([0.0, rng.gauss(0, 1)]), version=4)
    hit.payload["a"].string_value = "b"
    return hit


@settings(max_examples=60, deadline=None)
@given(name=NAMES, seed=SEEDS)
def test_grpc_answers_take_other_hits_in_another_order_with_other_scores(name: str, seed: int) -> None:
    rng = random.Random(seed)
    operation, batch = operation_of("grpc", name), name.endswith("Batch")
    lists = [[scored(rng, point) for point in rng.sample(IDS, rng.randint(0, 4))] for _ in range(3 if batch else 1)]
    kind = getattr(grpc, f"{name}Response")
    results = [grpc.BatchResult(result=one) for one in lists] if batch else lists[0]
    body = scramble(kind(result=results, time=0.5), rng)
    hits = READING.read_hits(operation, ASKED, body)
    for one, hit_list in zip(lists, hits, strict=True):
        assert [hit.id for hit in hit_list] == [hit.id.uuid or hit.id.num for hit in one]
        assert [hit.score for hit in hit_list] == [hit.score for hit in one]
    moved = [[hit._replace(score=rng.choice([hit.score, rng.random()])) for hit in reversed(one)] for one in hits]
    answer = kind.FromString(READING.form_hits(operation, ASKED, body, moved))
    answer.DiscardUnknownFields()  # of the scrambled hits
    assert answer.time == 0.5
    found = [list(one.result) for one in answer.result] if batch else [list(answer.result)]
    for wanted, got, before in zip(moved, found, lists, strict=True):
        expected = list(reversed(before))
        for hit, message in zip(wanted, expected, strict=True):
            message.score = struct.unpack("<f", struct.pack("<f", hit.score))[0]
        assert got == expected


@settings(max_examples=60, deadline=None)
@given(name=NAMES, seed=SEEDS)
def test_rest_answers_take_other_hits_in_another_order_with_other_scores(name: str, seed: int) -> None:
    rng = random.Random(seed)
    operation, batch = operation_of("rest", name), name.endswith("Batch")

    def wrap(hits: list[Any]) -> Any:
        return {"points": hits} if name.startswith("Query") else hits

    lists = [
        [{"id": point, "version": 1, "score": rng.random(), "payload": {"a": "é"}} for point in rng.sample(IDS, 3)]
        for _ in range(3 if batch else 1)
    ]
    lists[-1] = lists[-1] if rng.random() < 0.5 else []
    answer = {"result": [wrap(one) for one in lists] if batch else wrap(lists[0]), "status": "ok", "time": 0.5}
    body = json.dumps(answer).encode()
    hits = READING.read_hits(operation, ASKED, body)
    assert [[hit.id for hit in one] for one in hits] == [[hit["id"] for hit in one] for one in lists]
    moved = [[hit._replace(score=rng.choice([hit.score, rng.random()])) for hit in reversed(one)] for one in hits]
    found = json.loads(READING.form_hits(operation, ASKED, body, moved))
    for one, wanted in zip(lists, moved, strict=True):
        one.reverse()
        for hit, new in zip(one, wanted, strict=True):
            hit["score"] = new.score
    assert found == answer | {"result": [wrap(one) for one in lists] if batch else wrap(lists[0])}


def test_hits_without_an_id_or_a_score_are_refused() -> None:
    body = grpc.SearchResponse(result=[grpc.ScoredPoint(score=1.0)]).SerializeToString()
    with pytest.raises(MalformedError, match="no id"):
        READING.read_hits(operation_of("grpc", "Search"), ASKED, body)
    with pytest.raises(MalformedError, match="no score"):
        READING.read_hits(operation_of("rest", "Search"), ASKED, b'{"result": [{"id": 3}]}')
    with pytest.raises(MalformedError, match="no result"):
        READING.read_hits(operation_of("rest", "Search"), ASKED, b"{}")


def test_a_hit_of_one_answer_can_stand_in_another() -> None:
    operation = operation_of("rest", "Query")
    raw = Hit(3, 0.5, b'{"id":3,"score":0.25}')
    body = READING.form_hits(operation, ASKED, b'{"result":{"points":[]},"time":1.50}', [[raw]])
    assert body == b'{"result":{"points":[{"id":3,"score":0.5}]},"time":1.50}'
