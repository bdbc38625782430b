"""What each way of changing the model would give, query by query, from documents that exist in both spaces.

status quo: old-model queries on the old index. naive: new-model queries on it as they are. adapted: new-model queries
mapped. crossfade: part of the documents re-encoded, both indexes searched and ranked by both models' scores (merge.py),
the old one asked with mapped queries, or with those and what the old model makes of them blended. oracle: new-model
queries, all re-encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .base import Float32, Map
from .evaluate import NAIVE, ORACLE, STATUS_QUO
from .merge import TailMatcher, blend_hits, blend_queries, match_hits
from .metrics import Judgements, ndcg_at
from .search import search_exact

Float64 = NDArray[np.float64]
ADAPTED, CROSSFADE, LEGACY = "adapted", "crossfade", "crossfade, old-model queries"
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)
_OLD_HITS, _NEW_HITS, _DEPTH = 60, 60, 10  # as the proxy asks


@dataclass(frozen=True)
class Scene:
    """What is searched: the same documents as both models see them, and queries with their judgements.

    old_documents (m, old_dim), new_documents (m, new_dim), new_queries (n, new_dim), old_queries (n, old_dim) or None
    where the old model is not at hand; judgements are {document row: gain} for each query. Rows are of unit length.
    """

    old_documents: Float32
    new_documents: Float32
    new_queries: Float32
    old_queries: Float32 | None
    judgements: Judgements


@dataclass(frozen=True, eq=False)
class Strategy:
    """One way, at one share of re-encoded documents: nDCG@10 for each query (n,)."""

    name: str
    migrated: float
    values: Float64

    @property
    def mean(self) -> float:
        return float(self.values.mean())


def neighbours_as_truth(queries: Float32, documents: Float32) -> list[dict[int, float]]:
    """The ten nearest documents (m, dim) of each query (n, dim), worth 1 / log2(rank + 1), as judgements."""
    ranking, _ = search_exact(queries, documents, _DEPTH)
    gains = 1.0 / np.log2(np.arange(2, ranking.shape[1] + 2))
    return [dict(zip(row.tolist(), gains.tolist(), strict=True)) for row in ranking]


def measure_strategies(
    scene: Scene, fitted: Map, matcher: TailMatcher, *, shares: Sequence[float] = SHARES, seed: int = 0
) -> tuple[Strategy, ...]:
    """Measure every strategy that the scene has queries for; documents are re-encoded in an order drawn by seed."""
    mapped = fitted.apply(scene.new_queries)
    found = [
        Strategy(NAIVE, 0.0, _naive(scene)),
        Strategy(ADAPTED, 0.0, _search(mapped, scene.old_documents, scene.judgements)),
    ]
    if scene.old_queries is not None:
        found.insert(0, Strategy(STATUS_QUO, 0.0, _search(scene.old_queries, scene.old_documents, scene.judgements)))
    order = np.random.default_rng(seed).permutation(len(scene.old_documents))
    for name in (CROSSFADE,) if scene.old_queries is None else (CROSSFADE, LEGACY):
        for share in shares:
            old_side = mapped
            if name == LEGACY and scene.old_queries is not None:
                old_side = blend_queries(scene.old_queries, mapped, share)
            values = _half_migrated(scene, old_side, matcher, order, share)
            found.append(Strategy(name, share, values))
    found.append(Strategy(ORACLE, 1.0, _search(scene.new_queries, scene.new_documents, scene.judgements)))
    return tuple(found)


def _search(queries: Float32, documents: Float32, judgements: Judgements) -> Float64:
    return ndcg_at(search_exact(queries, documents, _DEPTH)[0], judgements, _DEPTH)


def _naive(scene: Scene) -> Float64:
    """0 where dimensions differ: the index refuses such queries."""
    if scene.new_queries.shape[1] != scene.old_documents.shape[1]:
        return np.zeros(len(scene.new_queries))
    return _search(scene.new_queries, scene.old_documents, scene.judgements)


def _half_migrated(
    scene: Scene, old_side: Float32, matcher: TailMatcher, order: NDArray[np.int64], share: float
) -> Float64:
    """nDCG@10 with the first `share` of the order re-encoded; old_side (n, old_dim) asks the old index."""
    fresh = order[: round(share * len(order))]
    is_fresh = np.zeros(len(order), bool)
    is_fresh[fresh] = True
    new_rows, _ = search_exact(scene.new_queries, scene.new_documents[fresh], min(_NEW_HITS, len(fresh)))
    old_rows, old_scores = search_exact(old_side, scene.old_documents, _OLD_HITS)
    line = matcher.match(scene.new_queries, old_side)
    ranked = np.full((len(old_rows), _DEPTH), -1)
    for at, query in enumerate(scene.new_queries):
        true = np.union1d(fresh[new_rows[at]], old_rows[at][is_fresh[old_rows[at]]])
        new = list(zip(true.tolist(), (scene.new_documents[true] @ query).tolist(), strict=True))
        own = list(zip(old_rows[at].tolist(), old_scores[at].tolist(), strict=True))
        scale, shift = match_hits(dict(new), own) or (float(line.scale[at]), float(line.shift[at]))
        old = [(row, scale * score + shift) for row, score in own]
        best = [row for row, _ in blend_hits(new, old, _DEPTH)]
        ranked[at, : len(best)] = best
    return ndcg_at(ranked, scene.judgements, _DEPTH)
