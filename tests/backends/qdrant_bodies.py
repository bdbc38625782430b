"""Random Qdrant REST bodies, made from the table of where vectors stand, which say what a reader must find.

In a row a list stands for one to three of what it holds, and a word in capitals for what the method of that name in
BodyBuilder makes: a point with vectors, a query level with its prefetches, ...
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from crossfade.backends.dialect import Float32, Role, ScoreKind

Row = dict[str, Any] | str
REQUESTS: dict[tuple[str, str], tuple[str, Row]] = {
    ("PUT", "points"): ("Upsert", "POINTS"),
    ("PUT", "points/vectors"): ("UpdateVectors", {"points": ["POINT_VECTORS"]}),
    ("POST", "points/batch"): (
        "UpdateBatch",
        {
            "operations": [
                {"upsert": "POINTS"},
                {"update_vectors": {"points": ["POINT_VECTORS"]}},
                {"delete": {"points": [1, 2]}},
            ]
        },
    ),
    ("POST", "points/query"): ("Query", "QUERY"),
    ("POST", "points/query/batch"): ("QueryBatch", {"searches": ["QUERY"]}),
    ("POST", "points/query/groups"): ("QueryGroups", "QUERY"),
    ("POST", "points/search"): ("Search", "SEARCH"),
    ("POST", "points/search/batch"): ("SearchBatch", {"searches": ["SEARCH"]}),
    ("POST", "points/search/groups"): ("SearchGroups", "SEARCH"),
    ("POST", "points/recommend"): ("Recommend", "RECOMMEND"),
    ("POST", "points/recommend/batch"): ("RecommendBatch", {"searches": ["RECOMMEND"]}),
    ("POST", "points/recommend/groups"): ("RecommendGroups", "RECOMMEND"),
    ("POST", "points/discover"): ("Discover", "DISCOVER"),
    ("POST", "points/discover/batch"): ("DiscoverBatch", {"searches": ["DISCOVER"]}),
    ("POST", "points"): ("Get", "SELECTION"),
    ("POST", "points/scroll"): ("Scroll", "SELECTION"),
    ("POST", "shards/3/points"): ("Get", "SELECTION"),
    ("POST", "shards/3/points/scroll"): ("Scroll", "SELECTION"),
}
_GROUPS = {"result": {"groups": [{"id": "g", "hits": ["HIT"], "lookup": "LOOKUP"}]}}
ANSWERS: dict[tuple[str, str], Row] = {
    ("GET", "points/7"): {"result": "HIT"},
    ("POST", "points"): {"result": ["HIT"]},
    ("POST", "points/scroll"): {"result": {"points": ["HIT"], "next_page_offset": None}},
    ("POST", "shards/3/points"): {"result": ["HIT"]},
    ("POST", "shards/3/points/scroll"): {"result": {"points": ["HIT"]}},
    ("POST", "points/query"): {"result": {"points": ["HIT"]}},
    ("POST", "points/query/batch"): {"result": [{"points": ["HIT"]}]},
    ("POST", "points/query/groups"): _GROUPS,
    ("POST", "points/search"): {"result": ["HIT"]},
    ("POST", "points/search/batch"): {"result": [["HIT"]]},
    ("POST", "points/search/groups"): _GROUPS,
    ("POST", "points/recommend"): {"result": ["HIT"]},
    ("POST", "points/recommend/batch"): {"result": [["HIT"]]},
    ("POST", "points/recommend/groups"): _GROUPS,
    ("POST", "points/discover"): {"result": ["HIT"]},
    ("POST", "points/discover/batch"): {"result": [["HIT"]]},
}
_PAIR = {"positive": "VECTOR", "negative": "VECTOR"}
_EXAMPLES = {"positive": ["VECTOR"], "negative": ["VECTOR"], "strategy": "STRATEGY"}
_FEEDBACK = {"example": "VECTOR", "score": "FEEDBACK_SCORE"}
QUERY_VARIANTS: dict[str, Row] = {
    "bare": "VECTOR",
    "nearest": {"nearest": "VECTOR"},
    "nearest_with_mmr": {"nearest": "VECTOR", "mmr": {"diversity": 0.5}},
    "recommend": {"recommend": _EXAMPLES},
    "discover": {"discover": {"target": "VECTOR", "context": [_PAIR]}},
    "discover with one pair": {"discover": {"target": "VECTOR", "context": _PAIR}},
    "context": {"context": [_PAIR]},
    "context of one pair": {"context": _PAIR},
    "relevance_feedback": {
        "relevance_feedback": {
            "target": "VECTOR",
            "feedback": [_FEEDBACK],
            "strategy": {"naive": {"a": 1.0, "b": 1.0, "c": 1.0}},
        }
    },
    "order_by": {"order_by": "price"},
    "fusion": {"fusion": "rrf"},
    "sample": {"sample": "random"},
    "formula": {"formula": {"sum": ["$score", {"mult": [0.5, "x"]}]}},
    "rrf": {"rrf": {"k": 10}},
    "null": "NULL",
}
_SIMILARITY = {"bare", "nearest", "nearest_with_mmr", "recommend"}  # scored in the vector space of the field
_QUERY_FORMS = ("dense", "dense", "multi", "document", "sparse", "image", "object", "id", "uuid")
_ANSWER_FORMS = ("dense", "dense", "multi", "sparse")

Path = tuple[str | int, ...]


@dataclass
class Place:
    """One place the builder filled: where, and what a slot must say of it."""

    path: Path
    collection: str
    field: str
    rows: Float32 | None = None
    text: tuple[str, str] | None = None
    score: float | None = None
    kind: ScoreKind = "threshold"

    def key(self, role: Role) -> tuple[object, ...]:
        """What is compared with qdrant_messages.slot_key."""
        if self.score is not None:
            return ("score", self.collection, self.field, self.score, self.kind)
        if self.text is not None:
            return ("text", self.collection, self.field, role, *self.text)
        assert self.rows is not None
        return ("vector", self.collection, self.field, role, None, self.rows.shape, self.rows.tobytes())


@dataclass
class BodyBuilder:
    """Makes one random body, and notes what is to be found in it."""

    rng: random.Random
    collection: str = "docs é"
    variant: str | None = None
    places: list[Place] = field(default_factory=list)
    wants_vectors: bool = False
    lookup: str | None = None
    _forms: tuple[str, ...] = _QUERY_FORMS
    _using: str = ""
    _similar: bool = True  # whether the level being made is scored by plain similarity

    def request(self, key: tuple[str, str]) -> Any:
        """A random request of one row of the table."""
        name, row = REQUESTS[key]
        body = self._render(row, ())
        if name.endswith("Groups"):
            body |= {"group_by": "x", "limit": 3, "group_size": 2, **self._lookup()}
        return body

    def answer(self, key: tuple[str, str], lookup: str) -> Any:
        """A random answer of one row of the table; looked-up points come from the collection `lookup`."""
        self.lookup, self._forms = lookup, _ANSWER_FORMS
        answer = self._render(ANSWERS[key], ())
        return answer | {"status": "ok", "time": 0.1}

    def _render(self, row: Any, path: Path) -> Any:
        if isinstance(row, str) and row.isupper():
            return getattr(self, f"_make_{row.lower()}")(path)
        if isinstance(row, dict):
            return {key: self._render(below, (*path, key)) for key, below in row.items()}
        if isinstance(row, list):
            picks = [row[at % len(row)] for at in range(max(len(row), self.rng.randint(1, 3)))]
            return [self._render(pick, (*path, at)) for at, pick in enumerate(picks)]
        return row

    def _lookup(self) -> dict[str, Any]:
        if self.rng.random() < 0.3:
            return {}
        self.lookup = "looked-up"
        if self.rng.random() < 0.5:
            return {"with_lookup": "looked-up"}
        return {"with_lookup": {"collection": "looked-up", "with_payload": True, **self._select()}}

    def _select(self) -> dict[str, Any]:
        choice = self.rng.choice((None, True, False, ["a", "b"], []))
        self.wants_vectors = self.wants_vectors or bool(choice)
        return {} if choice is None else {self.rng.choice(("with_vector", "with_vectors")): choice}

    def _make_points(self, path: Path) -> Any:
        if self.rng.random() < 0.5:
            return self._render({"points": ["POINT"]}, path)
        count = self.rng.randint(1, 3)
        batch = self._make_named((*path, "batch", "vectors"), count)
        return {"batch": {"ids": list(range(count)), "vectors": batch}}

    def _make_point(self, path: Path) -> Any:
        return {**self._make_point_vectors(path), "payload": self._payload()}

    def _make_point_vectors(self, path: Path) -> Any:
        return {"id": self.rng.getrandbits(63), "vector": self._make_named((*path, "vector"))}

    def _make_hit(self, path: Path) -> Any:
        return {"id": 7, "score": 0.25, **self._make_point(path)}

    def _make_lookup(self, path: Path) -> Any:
        asked, self.collection = self.collection, self.lookup or ""
        point = self._make_point(path)
        self.collection = asked
        return point

    def _make_named(self, path: Path, count: int | None = None) -> Any:
        """The vectors of a point, or the columns of `count` points, for the default field or by name."""
        names = self.rng.choice(((), ("a", "b"), ("", "ü\n")))
        self._using = ""
        if not names:
            return self._make_column(path, count, (self.rng.choice(("dense", "multi")),))
        made = {}
        for self._using in names:
            made[self._using] = self._make_column((*path, self._using), count, self._forms)
        return made

    def _make_column(self, path: Path, count: int | None, forms: tuple[str, ...]) -> Any:
        forms = tuple(form for form in forms if form not in ("id", "uuid"))
        if count is None:
            return self._vector(path, forms)
        return [self._vector((*path, at), forms) for at in range(count)]

    def _payload(self) -> Any:
        return {
            "text": 'a "quoted" ] } \\ é',
            "n": [1, 2.5, []],
            "vector": [1, 2],
            "deep": {"points": [{"vector": [0.5]}]},
        }

    def _make_selection(self, path: Path) -> Any:
        return {"ids": [1, 2], "filter": {"must": [{"has_id": [1, 2]}]}, "limit": 3, **self._select()}

    def _make_search(self, path: Path) -> Any:
        name = self.rng.choice((None, "text", "ü"))
        self._using, self._similar = name or "", True
        if name is None:
            vector = self._vector((*path, "vector"), ("dense",))
        else:
            vector = {"name": name, "vector": self._vector((*path, "vector", "vector"), ("dense", "sparse"))}
        return {"vector": vector, "limit": 3, **self._threshold(path, self._similar), **self._select()}

    def _make_recommend(self, path: Path) -> Any:
        level = self._name_field()
        level |= self._render({"positive": ["EXAMPLE"], "negative": ["EXAMPLE"], "strategy": "STRATEGY"}, path)
        return {**level, "limit": 3, **self._threshold(path, self._similar), **self._select()}

    def _make_discover(self, path: Path) -> Any:
        pair = {"positive": "EXAMPLE", "negative": "EXAMPLE"}
        level = self._name_field() | self._render({"target": "EXAMPLE", "context": [pair]}, path)
        return {**level, "limit": 3, **self._select()}

    def _make_query(self, path: Path) -> Any:
        return {**self._make_level(path), **self._select()}

    def _make_level(self, path: Path) -> Any:
        level: dict[str, Any] = {"limit": 3}
        if len(path) < 9 and self.rng.random() < 0.5:
            prefetch: Any = self.rng.choice(("LEVEL", ["LEVEL"]))
            level["prefetch"] = self._render(prefetch, (*path, "prefetch"))
        level |= self._name_field()
        variant = self.variant or self.rng.choice(list(QUERY_VARIANTS))
        level["query"] = self._render(QUERY_VARIANTS[variant], (*path, "query"))
        return level | self._threshold(path, variant in _SIMILARITY and self._similar)

    def _name_field(self) -> dict[str, Any]:
        using = self.rng.choice((None, "", "text", "ünnamed"))
        self._using, self._similar = using or "", True
        return {} if using is None else {"using": using}

    def _threshold(self, path: Path, similar: bool) -> dict[str, Any]:
        score = self.rng.uniform(-1, 1)
        if similar:
            self.places.append(Place((*path, "score_threshold"), self.collection, self._using, score=score))
        return {"score_threshold": score}

    def _make_null(self, path: Path) -> Any:
        return None

    def _make_strategy(self, path: Path) -> Any:
        strategy = self.rng.choice(("average_vector", "best_score", "sum_scores"))
        self._similar = self._similar and strategy == "average_vector"
        return strategy

    def _make_feedback_score(self, path: Path) -> Any:
        score = self.rng.choice((0.0, 0.5, -0.25))
        self.places.append(Place(path, self.collection, self._using, score=score, kind="feedback"))
        return score

    def _make_example(self, path: Path) -> Any:
        return self._vector(path, ("dense", "sparse", "id", "uuid"))

    def _make_vector(self, path: Path) -> Any:
        return self._vector(path, self._forms)

    def _vector(self, path: Path, forms: tuple[str, ...]) -> Any:
        form = self.rng.choice(forms)
        self._similar = self._similar and form not in ("sparse", "image", "object")
        if form in ("dense", "multi"):
            numbers = np.random.default_rng(self.rng.getrandbits(32))
            n = self.rng.randint(1, 3) if form == "multi" else 1
            rows = numbers.normal(size=(n, self.rng.choice((1, 3, 40)))).astype(np.float32)
            self.places.append(Place(path, self.collection, self._using, rows=rows))
            return rows[0].tolist() if form == "dense" else rows.tolist()
        if form == "document":
            text = (f"text {self.rng.random()} ü", "model-a")
            self.places.append(Place(path, self.collection, self._using, text=text))
            return {"text": text[0], "model": text[1], "options": {"a": [1]}}
        return {
            "sparse": {"indices": [1, 5], "values": [0.5, 1.5]},
            "image": {"image": "https://example.org/a.png", "model": "clip"},
            "object": {"object": {"text": "x"}, "model": "any"},
            "id": 7,
            "uuid": "5c56c793-69f3-4fbf-87e6-c4bf54c28c26",
        }[form]
