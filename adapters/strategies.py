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
from .half_migrated import HalfMigrated
from .merge import TailMatcher, blend_queries
from .metrics import Judgements, ndcg_at
from .scene import Scene
from .search import Int64, search_exact
from .weights import Weighed, Weights, usual_weights, weights_to_try

Float64 = NDArray[np.float64]
ADAPTED, CROSSFADE, LEGACY = "adapted", "crossfade", "crossfade, old-model queries"
SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)
_DEPTH = 10


@dataclass(frozen=True, eq=False)
class Strategy:
    """One way, at one share of re-encoded documents: nDCG@10 for each query (n,)."""

    name: str
    migrated: float
    values: Float64

    @property
    def mean(self) -> float:
        return float(self.values.mean())


def weigh(
    scene: Scene, maps: Sequence[Map], matcher: TailMatcher, *, shares: Sequence[float] = SHARES, seed: int = 0
) -> tuple[Weighed, ...]:
    """Measure every blend of both models at each share; documents are re-encoded in an order drawn by seed.

    `maps` has the query map of each share.
    """
    return tuple(
        weigh_at(scene, fitted.apply(scene.new_queries), scene.re_encoded(share, seed), share, matcher)
        for share, fitted in zip(shares, maps, strict=True)
    )


def weigh_at(scene: Scene, mapped: Float32, done: Int64, share: float, matcher: TailMatcher) -> Weighed:
    """Measure every blend with the documents `done` (rows) re-encoded, for queries mapped to (n, old_dim)."""
    values: dict[Weights | None, Float64] = {None: _search(mapped, scene.old_documents, scene.judgements)}
    half = HalfMigrated(scene, done, matcher)
    tried = weights_to_try(share, texts=scene.old_queries is not None)
    for adapted in dict.fromkeys(weights.adapted for weights in tried):
        asked = mapped
        if adapted < 1 and scene.old_queries is not None:
            asked = blend_queries(scene.old_queries, mapped, adapted)
        trusts = [weights.trust for weights in tried if weights.adapted == adapted]
        for trust, ranking in zip(trusts, half.rank(asked, trusts, _DEPTH), strict=True):
            values[Weights(adapted, trust)] = ndcg_at(ranking, scene.judgements, _DEPTH)
    return Weighed(share, values)


def measure_strategies(scene: Scene, fitted: Map, weighed: Sequence[Weighed]) -> tuple[Strategy, ...]:
    """Measure every strategy that the scene has queries for; half migrated it is the one with the usual weights."""
    mapped = fitted.apply(scene.new_queries)
    found = [
        Strategy(NAIVE, 0.0, _naive(scene)),
        Strategy(ADAPTED, 0.0, _search(mapped, scene.old_documents, scene.judgements)),
    ]
    if scene.old_queries is not None:
        found.insert(0, Strategy(STATUS_QUO, 0.0, _search(scene.old_queries, scene.old_documents, scene.judgements)))
    for name in (CROSSFADE,) if scene.old_queries is None else (CROSSFADE, LEGACY):
        for one in weighed:
            if one.migrated > 0 or name == LEGACY:  # without anything re-encoded crossfade is adapted
                usual = usual_weights(one.migrated, texts=name == LEGACY)
                found.append(Strategy(name, one.migrated, one.values[usual]))
    found.append(Strategy(ORACLE, 1.0, _search(scene.new_queries, scene.new_documents, scene.judgements)))
    return tuple(found)


def _search(queries: Float32, documents: Float32, judgements: Judgements) -> Float64:
    return ndcg_at(search_exact(queries, documents, _DEPTH)[0], judgements, _DEPTH)


def _naive(scene: Scene) -> Float64:
    """0 where dimensions differ: the index refuses such queries."""
    if scene.new_queries.shape[1] != scene.old_documents.shape[1]:
        return np.zeros(len(scene.new_queries))
    return _search(scene.new_queries, scene.old_documents, scene.judgements)
