"""Answers of the embedded Qdrant held against qdrant-client's local mode, over random requests.

Where the two differ on purpose, `docs/embedded-qdrant.md` says why, and the exception here is as narrow as that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient
from qdrant_client import models as m

from crossfade.backends.embedded import QdrantServer
from tests.backends.embedded_qdrant_requests import CONFIG, INDEXES, Requests

SEED = 20261123
ROUNDS = 120
Both = tuple[QdrantClient, QdrantClient]


@pytest.fixture(scope="module")
def requests() -> Requests:
    return Requests(SEED)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, requests: Requests) -> Iterator[tuple[QdrantServer, QdrantClient]]:
    points = requests.points()
    oracle = QdrantClient(":memory:")
    with QdrantServer(tmp_path_factory.mktemp("oracle")) as server:
        served = connect(server, grpc=True)
        for client in (oracle, served):
            client.create_collection("c", **CONFIG)
            for key, kind in INDEXES.items():
                client.create_payload_index("c", key, kind)
            client.upsert("c", points)
        yield server, oracle


@pytest.fixture(params=["grpc", "rest"])
def both(request: pytest.FixtureRequest, filled: tuple[QdrantServer, QdrantClient]) -> Both:
    server, oracle = filled
    return connect(server, grpc=request.param == "grpc"), oracle


def connect(server: QdrantServer, grpc: bool) -> QdrantClient:
    return QdrantClient(
        host="127.0.0.1", port=server.rest_port, grpc_port=server.grpc_port, prefer_grpc=grpc, check_compatibility=False
    )


def ranking(points: list[Any]) -> list[tuple[Any, float]]:
    return [(point.id, point.score) for point in points]


def assert_same_ranking(found: list[Any], expected: list[Any]) -> None:
    """Equal scores rank by rank; points may only change places where scores tie."""
    ours, theirs = ranking(found), ranking(expected)
    assert len(ours) == len(theirs)
    for (_, score), (_, wanted) in zip(ours, theirs, strict=True):
        assert math.isclose(score, wanted, rel_tol=2e-4, abs_tol=2e-5), (ours, theirs)
    known = dict(theirs)
    for point, score in ours:
        references = [known[point]] if point in known else [theirs[0][1], theirs[-1][1]]  # ties at the page's edges
        assert any(math.isclose(score, each, rel_tol=2e-4, abs_tol=2e-5) for each in references), (point, ours, theirs)


def plain(vector: Any) -> Any:
    """Vectors as lists and dicts, sparse ones by index."""
    if isinstance(vector, dict):
        return {name: plain(each) for name, each in vector.items()} or None
    if isinstance(vector, m.SparseVector):
        return [list(pair) for pair in sorted(zip(vector.indices, vector.values, strict=True))]
    return vector


def assert_close(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            assert_close(found[name], expected[name])
    elif isinstance(expected, list):
        np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=1e-5)
    else:
        assert found == expected


def assert_same_point(found: Any, expected: Any) -> None:
    assert found.id == expected.id
    assert (found.payload or None) == (expected.payload or None)
    assert_close(plain(found.vector), plain(expected.vector))


def assert_same_content(found: list[Any], expected: list[Any]) -> None:
    """Equal payloads and vectors of the points that both answers hold."""
    wanted = {point.id: point for point in expected}
    for point in found:
        if point.id in wanted:
            assert_same_point(point, wanted[point.id])


def test_queries_rank_as_in_local_mode(both: Both) -> None:
    served, oracle = both
    requests = Requests(SEED + 1)
    requests.ids = Requests(SEED).ids
    for _ in range(ROUNDS):
        asked = requests.query()
        found = served.query_points("c", **asked).points
        expected = oracle.query_points("c", **asked).points
        assert_same_ranking(found, expected)
        assert_same_content(found, expected)


def test_a_batch_answers_each_query_as_alone(both: Both) -> None:
    served, oracle = both
    requests = Requests(SEED)
    searches = [
        m.QueryRequest(
            query=requests.dense("dot"), using="dot", filter=requests.maybe_filter(), limit=5, with_payload=True
        )
        for _ in range(20)
    ]
    answers = zip(served.query_batch_points("c", searches), oracle.query_batch_points("c", searches), strict=True)
    for found, expected in answers:
        assert_same_ranking(found.points, expected.points)
        assert_same_content(found.points, expected.points)


def prices(points: list[Any]) -> list[float]:
    return [point.payload["price"] for point in points]


def test_scrolling_gives_the_same_pages(both: Both) -> None:
    served, oracle = both
    requests = Requests(SEED + 2)
    requests.ids = Requests(SEED).ids
    for _ in range(80):
        asked = requests.scroll()
        found, following = served.scroll("c", **asked)
        expected, expected_following = oracle.scroll("c", **asked)
        if "order_by" in asked:
            assert prices(found) == prices(expected)
            continue
        assert [point.id for point in found] == [point.id for point in expected]
        assert_same_content(found, expected)
        assert following == expected_following


def test_counts_and_facets_agree(both: Both) -> None:
    served, oracle = both
    requests = Requests(SEED + 3)
    requests.ids = Requests(SEED).ids
    for _ in range(40):
        chosen = requests.filter(3)
        assert served.count("c", chosen).count == oracle.count("c", chosen).count
        for key in ("color", "tags", "size", "ok"):
            found = served.facet("c", key, facet_filter=chosen, limit=100, exact=True).hits
            expected = oracle.facet("c", key, facet_filter=chosen, limit=100).hits
            assert {(hit.value, hit.count) for hit in found} == {(hit.value, hit.count) for hit in expected}
            assert [hit.count for hit in found] == [hit.count for hit in expected]


def test_groups_agree(both: Both) -> None:
    served, oracle = both
    requests = Requests(SEED + 4)
    requests.ids = Requests(SEED).ids
    for _ in range(60):
        asked = requests.groups()
        found = served.query_points_groups("c", **asked).groups
        expected = oracle.query_points_groups("c", **asked).groups
        assert [group.id for group in found] == [group.id for group in expected]
        for ours, theirs in zip(found, expected, strict=True):
            assert_same_ranking(ours.hits, theirs.hits)
            assert_same_content(ours.hits, theirs.hits)


def test_groups_look_up_the_point_of_their_key(both: Both) -> None:
    served, oracle = both
    for client in both:
        if not client.collection_exists("owners"):
            client.create_collection("owners", vectors_config={})
            points = [m.PointStruct(id=number, vector={}, payload={"name": f"n{number}"}) for number in range(12)]
            client.upsert("owners", points)
    asked: dict[str, Any] = {"query": Requests(SEED).dense("cos"), "using": "cos", "group_by": "size", "limit": 12}
    for lookup in ("owners", m.WithLookup(collection="owners", with_payload=["none"])):
        found = served.query_points_groups("c", **asked, with_lookup=lookup).groups
        expected = oracle.query_points_groups("c", **asked, with_lookup=lookup).groups
        assert any(group.lookup for group in found)
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours.lookup is None) == (theirs.lookup is None)
            if ours.lookup is not None:
                assert_same_point(ours.lookup, theirs.lookup)


def test_relevance_feedback_agrees(both: Both) -> None:
    served, oracle = both
    requests = Requests(SEED + 5)
    requests.ids = Requests(SEED).ids
    for _ in range(20):
        items = [m.FeedbackItem(example=requests.example("cos"), score=requests.random.random()) for _ in range(4)]
        strategy = m.NaiveFeedbackStrategy(naive=m.NaiveFeedbackStrategyParams(a=0.1, b=0.5, c=0.3))
        feedback = m.RelevanceFeedbackInput(target=requests.dense("cos"), feedback=items, strategy=strategy)
        asked: dict[str, Any] = {"query": m.RelevanceFeedbackQuery(relevance_feedback=feedback), "using": "cos"}
        assert_same_ranking(served.query_points("c", **asked).points, oracle.query_points("c", **asked).points)


def test_examples_are_looked_up_in_another_collection(both: Both) -> None:
    served, oracle = both
    requests = Requests(SEED + 6)
    for client in both:
        if not client.collection_exists("examples"):
            client.create_collection(
                "examples", vectors_config={"other": m.VectorParams(size=8, distance=m.Distance.DOT)}
            )
            vectors = Requests(SEED)
            points = [m.PointStruct(id=number, vector={"other": vectors.dense("cos")}) for number in range(10)]
            client.upsert("examples", points)
    lookup = m.LookupLocation(collection="examples", vector="other")
    for _ in range(20):
        positive, negative = requests.random.sample(range(10), 2)
        recommend = m.RecommendInput(positive=[positive], negative=[negative, requests.dense("cos")])
        asked: dict[str, Any] = {"query": m.RecommendQuery(recommend=recommend), "using": "cos", "lookup_from": lookup}
        assert_same_ranking(served.query_points("c", **asked).points, oracle.query_points("c", **asked).points)


def test_a_random_sample_is_drawn_from_what_matches(both: Both) -> None:
    served, oracle = both
    red = m.Filter(must=[m.FieldCondition(key="color", match=m.MatchValue(value="red"))])
    expected = {point.id for point in oracle.scroll("c", scroll_filter=red, limit=1000)[0]}
    sample = m.SampleQuery(sample=m.Sample.RANDOM)
    found = served.query_points("c", query=sample, query_filter=red, limit=len(expected) + 5).points
    assert {point.id for point in found} == expected


def test_should_clauses_of_query_and_prefetch_are_alternatives_as_in_the_server(both: Both) -> None:
    """The engine merges the clauses of all levels, and so does a Qdrant server; local mode filters once more."""
    served, _ = both

    def should(color: str) -> m.Filter:
        return m.Filter(should=[m.FieldCondition(key="color", match=m.MatchValue(value=color))])

    vector = Requests(SEED).dense("cos")
    prefetch = m.Prefetch(query=vector, using="cos", filter=should("red"), limit=200)
    found = served.query_points(
        "c", prefetch=prefetch, query=vector, using="cos", query_filter=should("blue"), limit=200, with_payload=True
    ).points
    assert {point.payload["color"] for point in found if point.payload} == {"red", "blue"}
