"""Random points and requests for the embedded Qdrant, the same for every run of one seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from qdrant_client import models as m

DENSE = {"cos": 8, "euc": 6, "dot": 5, "man": 4}
MULTI = 4
COLORS = ("red", "green", "blue", "black", "white")
WORDS = ("quick", "brown", "fox", "lazy", "dog", "runs", "north")
CONFIG: dict[str, Any] = {
    "vectors_config": {
        "cos": m.VectorParams(size=8, distance=m.Distance.COSINE),
        "euc": m.VectorParams(size=6, distance=m.Distance.EUCLID),
        "dot": m.VectorParams(size=5, distance=m.Distance.DOT),
        "man": m.VectorParams(size=4, distance=m.Distance.MANHATTAN),
        "multi": m.VectorParams(
            size=MULTI,
            distance=m.Distance.COSINE,
            multivector_config=m.MultiVectorConfig(comparator=m.MultiVectorComparator.MAX_SIM),
        ),
    },
    "sparse_vectors_config": {"sparse": m.SparseVectorParams()},
}
INDEXES: dict[str, Any] = {
    "color": "keyword",
    "size": "integer",
    "price": "float",
    "ok": "bool",
    "tags": "keyword",
    "when": "datetime",
    "place": "geo",
    "text": "text",
}


class Requests:
    """A stream of random requests over one collection of `count` random points."""

    def __init__(self, seed: int, count: int = 150) -> None:
        self.random = random.Random(seed)
        self.ids: list[Any] = [self._id(number) for number in range(count)]

    def _id(self, number: int) -> int | str:
        return str(UUID(int=self.random.getrandbits(128), version=4)) if number % 4 == 3 else number * 3

    def dense(self, name: str) -> list[float]:
        """A vector for a dense field."""
        return [round(self.random.gauss(0, 1), 3) for _ in range(DENSE[name])]

    def sparse(self) -> m.SparseVector:
        """A sparse vector of three to six weights."""
        indices = sorted(self.random.sample(range(30), self.random.randint(3, 6)))
        return m.SparseVector(indices=indices, values=[round(self.random.uniform(0.1, 2), 3) for _ in indices])

    def multi(self) -> list[list[float]]:
        """A multi-vector of one to three rows."""
        rows = self.random.randint(1, 3)
        return [[round(self.random.gauss(0, 1), 3) for _ in range(MULTI)] for _ in range(rows)]

    def vectors(self) -> dict[str, Any]:
        """Vectors of a point: `cos` always, the others mostly."""
        found: dict[str, Any] = {
            name: self.dense(name) for name in DENSE if name == "cos" or self.random.random() < 0.9
        }
        if self.random.random() < 0.9:
            found["sparse"] = self.sparse()
        if self.random.random() < 0.9:
            found["multi"] = self.multi()
        return found

    def payload(self) -> dict[str, Any]:
        """A payload where every key is sometimes missing, null or empty."""
        pick = self.random
        made: dict[str, Any] = {
            "color": pick.choice(COLORS),
            "size": pick.randint(-5, 20),
            "price": round(pick.uniform(0, 50), 2),
            "ok": pick.random() < 0.5,
            "tags": pick.sample(COLORS, pick.randint(0, 3)),
            "when": f"2024-0{pick.randint(1, 9)}-1{pick.randint(0, 9)}T0{pick.randint(0, 9)}:00:00Z",
            "place": {"lon": round(pick.uniform(-10, 10), 3), "lat": round(pick.uniform(40, 55), 3)},
            "text": " ".join(pick.sample(WORDS, pick.randint(1, 4))),
            "note": None,
            "items": [{"kind": pick.choice("abc"), "n": pick.randint(0, 5)} for _ in range(pick.randint(0, 3))],
        }
        return {key: value for key, value in made.items() if pick.random() < 0.85}

    def points(self) -> list[m.PointStruct]:
        """The collection's points."""
        return [m.PointStruct(id=point, vector=self.vectors(), payload=self.payload()) for point in self.ids]

    def filter(self, depth: int = 2) -> m.Filter:
        """A filter of one to three conditions, nested up to `depth`."""
        pick = self.random

        def some() -> list[Any]:
            return [self.condition(depth - 1) for _ in range(pick.randint(1, 3))]

        kind = pick.randrange(5)
        if kind == 0:
            distinct = {repr(condition): condition for condition in [*some(), *some()]}  # twins confuse the engine
            return m.Filter(min_should=m.MinShould(conditions=list(distinct.values()), min_count=2))
        if kind == 1:
            return m.Filter(should=some(), must_not=some())
        if kind == 2:
            return m.Filter(must=some(), must_not=some())
        return m.Filter(should=some()) if kind == 3 else m.Filter(must=some())

    def condition(self, depth: int) -> Any:
        """One condition of any kind."""
        pick = self.random
        field = m.FieldCondition
        low, high = sorted((round(pick.uniform(0, 50), 1), round(pick.uniform(0, 50), 1)))
        month = pick.randint(1, 9)
        makers: list[Callable[[], Any]] = [
            lambda: field(key="color", match=m.MatchValue(value=pick.choice(COLORS))),
            lambda: field(key="size", match=m.MatchValue(value=pick.randint(-5, 20))),
            lambda: field(key="ok", match=m.MatchValue(value=pick.random() < 0.5)),
            lambda: field(key="tags", match=m.MatchAny(any=pick.sample(COLORS, 2))),
            lambda: field(key="size", match=m.MatchAny(any=pick.sample(range(-5, 20), 6))),
            lambda: field(key="color", match=m.MatchExcept(**{"except": pick.sample(COLORS, 2)})),
            lambda: field(key="price", range=m.Range(gte=low, lt=high)),
            lambda: field(key="size", range=m.Range(gt=low / 5, lte=high / 2)),
            lambda: field(key="when", range=m.DatetimeRange(gte=datetime(2024, month, 15, tzinfo=UTC))),
            lambda: field(key="tags", values_count=m.ValuesCount(gte=pick.randint(1, 3))),
            lambda: field(
                key="place",
                geo_radius=m.GeoRadius(
                    center=m.GeoPoint(lon=pick.uniform(-10, 10), lat=pick.uniform(40, 55)),
                    radius=pick.uniform(1e5, 1e6),
                ),
            ),
            lambda: field(
                key="place",
                geo_bounding_box=m.GeoBoundingBox(
                    top_left=m.GeoPoint(lon=-8, lat=52), bottom_right=m.GeoPoint(lon=5, lat=42)
                ),
            ),
            lambda: m.IsEmptyCondition(is_empty=m.PayloadField(key=pick.choice(("tags", "note", "color", "items")))),
            lambda: m.IsNullCondition(is_null=m.PayloadField(key="note")),
            lambda: m.HasIdCondition(has_id=pick.sample(self.ids, 40)),
            lambda: m.HasVectorCondition(has_vector=pick.choice(("multi", "sparse", "euc"))),
            lambda: m.NestedCondition(
                nested=m.Nested(
                    key="items",
                    filter=m.Filter(
                        must=[
                            field(key="kind", match=m.MatchValue(value=pick.choice("abc"))),
                            field(key="n", range=m.Range(gte=pick.randint(0, 4))),
                        ]
                    ),
                )
            ),
        ]
        if depth > 0 and pick.random() < 0.2:
            return self.filter(depth)
        return pick.choice(makers)()

    def maybe_filter(self) -> m.Filter | None:
        """A filter, half of the time."""
        return self.filter() if self.random.random() < 0.5 else None

    def example(self, name: str) -> Any:
        """A vector for a field, or the id of a point (which may lack it: only `cos` is always there)."""
        if name == "cos" and self.random.random() < 0.5:
            return self.random.choice(self.ids)
        return self.vector(name)

    def vector(self, name: str) -> Any:
        """A vector for any field."""
        return self.sparse() if name == "sparse" else self.multi() if name == "multi" else self.dense(name)

    def examples(self, name: str, least: int) -> list[Any]:
        """`least` to three examples."""
        return [self.example(name) for _ in range(self.random.randint(least, 3))]

    def vector_query(self, name: str) -> Any:
        """A query that ranks by vectors."""
        pick = self.random
        kind = pick.randrange(6)
        if kind == 0:
            return m.NearestQuery(nearest=self.example(name))
        if kind in (1, 2):
            strategies = [m.RecommendStrategy.BEST_SCORE, m.RecommendStrategy.SUM_SCORES]
            if name not in ("multi", "sparse"):
                strategies.append(m.RecommendStrategy.AVERAGE_VECTOR)
            positive, negative = self.examples(name, 1), self.examples(name, 0)
            chosen = pick.choice(strategies)
            return m.RecommendQuery(recommend=m.RecommendInput(positive=positive, negative=negative, strategy=chosen))
        pairs = [m.ContextPair(positive=self.example(name), negative=self.example(name)) for _ in range(2)]
        if kind == 3:
            return m.DiscoverQuery(discover=m.DiscoverInput(target=self.example(name), context=pairs))
        if kind == 4:
            return m.ContextQuery(context=pairs)
        return self.vector(name)

    def prefetch(self, depth: int = 1) -> m.Prefetch:
        """A prefetch, sometimes with prefetches of its own.

        Its filter stands inside a `must`: `should` clauses of several levels are alternatives of each other in Qdrant.
        """
        name = self.random.choice((*DENSE, "sparse"))
        inner = [self.prefetch(depth - 1)] if depth and self.random.random() < 0.3 else None
        return m.Prefetch(
            query=self.vector(name),
            using=name,
            filter=m.Filter(must=[self.filter()]) if self.random.random() < 0.5 else None,
            limit=self.random.randint(5, 40),
            prefetch=inner,
        )

    def query(self) -> dict[str, Any]:
        """Keyword arguments of `query_points`."""
        pick = self.random
        name = pick.choice((*DENSE, "sparse", "multi"))
        asked: dict[str, Any] = {
            "query_filter": self.maybe_filter(),
            "limit": pick.randint(1, 20),
            "offset": pick.choice((None, 0, 3)),
            "with_payload": pick.choice((True, False, ["color", "size"], m.PayloadSelectorExclude(exclude=["text"]))),
            "with_vectors": pick.choice((True, False, ["dot", "sparse"])),
        }
        kind = pick.randrange(9)
        if kind < 4:
            return {**asked, "query": self.vector_query(name), "using": name}
        if kind == 8:
            mmr = m.Mmr(diversity=round(pick.random(), 2), candidates_limit=pick.randint(20, 60))
            return {**asked, "query": m.NearestQuery(nearest=self.dense("cos"), mmr=mmr), "using": "cos"}
        if kind == 4:
            return {**asked, "prefetch": [self.prefetch(), self.prefetch()], "query": self.fusion()}
        if kind == 5:
            return {**asked, "prefetch": self.prefetch(), "query": self.vector(name), "using": name}
        if kind == 6:
            return {**asked, "query": m.OrderByQuery(order_by=self.order()), "offset": None}
        return {**asked, "prefetch": self.prefetch(0), "query": self.formula()}

    def fusion(self) -> Any:
        """A fusion of two prefetches."""
        pick = self.random
        if pick.random() < 0.4:
            weights = [1.0, 2.0] if pick.random() < 0.5 else None
            return m.RrfQuery(rrf=m.Rrf(k=pick.randint(1, 60), weights=weights))
        return m.FusionQuery(fusion=pick.choice((m.Fusion.RRF, m.Fusion.DBSF)))

    def order(self) -> m.OrderBy:
        """An ordering by a payload key without ties to speak of."""
        return m.OrderBy(key="price", direction=self.random.choice((m.Direction.ASC, m.Direction.DESC)))

    def formula(self) -> m.FormulaQuery:
        """A formula over score and payload."""
        color = m.FieldCondition(key="color", match=m.MatchValue(value=self.random.choice(COLORS)))
        boost = m.MultExpression(mult=[self.random.uniform(0.1, 2), color])
        decay = m.GaussDecayExpression(gauss_decay=m.DecayParamsExpression(x="price", target=20.0, scale=10.0))
        return m.FormulaQuery(formula=m.SumExpression(sum=["$score", boost, decay]), defaults={"price": 5.0})

    def scroll(self) -> dict[str, Any]:
        """Keyword arguments of `scroll`."""
        asked = {"scroll_filter": self.maybe_filter(), "limit": self.random.randint(1, 30), "with_vectors": True}
        if self.random.random() < 0.4:
            return {**asked, "order_by": self.order()}
        return {**asked, "offset": self.random.choice((None, self.random.choice(self.ids)))}

    def groups(self) -> dict[str, Any]:
        """Keyword arguments of `query_points_groups`."""
        return {
            "query": self.dense("cos"),
            "using": "cos",
            "query_filter": self.maybe_filter(),
            "group_by": self.random.choice(("color", "size", "tags")),
            "limit": self.random.randint(1, 5),
            "group_size": self.random.randint(1, 4),
            "with_payload": True,
        }
