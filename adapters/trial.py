"""Held-out retrieval: how well a map finds what the new model itself would find.

Truth needs no judgements. Some pairs are held out of the fit; queries (observed ones of the new model where there are
any, else held-out documents) have their exact neighbours among documents in the *new* space; a map is scored by
finding them among the same documents in the *old* space. The documents searched are held-out ones and as many fitted
ones as keep the share of the corpus that is paired: a residual knows its own pairs, and would look too good on them
alone and too bad without them. Measured on 13 collections, this share and the score below lost least against choosing
by judgements (mean regret .019 nDCG@10; held-out documents as queries .026 to .035).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .base import Float32, Map
from .metrics import Judgements, ndcg_at
from .pairs import Pairs
from .search import Int64, search_exact

Float64 = NDArray[np.float64]
DEPTH = 10
MOST_QUERIES = 200
FEW_QUERIES = 200  # fewer observed ones are made up to this number with held-out documents
MOST_DOCUMENTS = 8_000
_DISCOUNTS = 1.0 / np.log2(np.arange(2, DEPTH + 2))


@dataclass(frozen=True)
class Trial:
    """One split: pairs to fit on, queries (n, source_dim), documents to search (m, target_dim) and truth (n, DEPTH).

    sources (m, source_dim) are the same documents in the new space; truth holds rows of them, nearest first, by the
    new model alone; query_mean is that of the observed queries; share is the part of the corpus that is paired.
    """

    fit: Pairs
    queries: Float32
    sources: Float32
    documents: Float32
    truth: Int64
    query_mean: NDArray[np.float64] | None
    share: float | None = None

    def score(self, fitted: Map) -> Float64:
        """One value from 0 to 1 for each query: the mean of graded nDCG@10 and 1 / rank of the new model's best."""
        rankings, _ = search_exact(fitted.apply(self.queries), self.documents, DEPTH)
        return neighbour_score(rankings, self.truth)


@dataclass(frozen=True)
class JudgedTrial:
    """Judged queries to choose by: queries (n, source_dim), the old index's documents (m, target_dim), judgements (n).

    They replace held-out truth and predict quality better (mean regret .008); queries that an evaluation will test must
    not be among them. All pairs are fitted, as they will be in serving.
    """

    fit: Pairs
    queries: Float32
    documents: Float32
    judgements: Judgements
    query_mean: NDArray[np.float64] | None = None

    def score(self, fitted: Map) -> Float64:
        """nDCG@10 for each query."""
        rankings, _ = search_exact(fitted.apply(self.queries), self.documents, DEPTH)
        return ndcg_at(rankings, self.judgements, DEPTH)


AnyTrial: TypeAlias = Trial | JudgedTrial


def neighbour_score(rankings: Int64, truth: Int64) -> Float64:
    """Score rankings (n, depth) against neighbours (n, depth), nearest first, each worth 1 / log2(rank + 1)."""
    depth = truth.shape[1]
    discounts = _DISCOUNTS[:depth]
    gains = (rankings[:, :, None] == truth[:, None, :]) @ discounts
    graded = gains @ _DISCOUNTS[: rankings.shape[1]] / (discounts @ discounts)
    first = (rankings == truth[:, :1]) @ (1.0 / np.arange(1, rankings.shape[1] + 1))
    return np.asarray((graded + first) / 2, np.float64)


def make_trials(
    pairs: Pairs,
    *,
    queries: Float32 | None = None,
    query_mean: NDArray[np.float64] | None = None,
    share: float | None = None,
    folds: int | None = None,
    held: float = 0.2,
    seed: int = 0,
) -> list[Trial]:
    """Split pairs into `folds` trials (8 below 1,500 pairs, else 3), each with a share `held` of them held out, by
    seed.

    queries (n, source_dim) are observed queries of the new model; query_mean alone is used by moving held-out documents
    to it. share is the part of the corpus that the pairs are, None when unknown: then held-out documents alone are
    searched.
    """
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(pairs))
    size = max(DEPTH + 1, round(len(pairs) * held))
    if folds is None:
        folds = 8 if len(pairs) < 1_500 else 3
    trials = []
    for fold in range(folds):
        hidden, kept = _part(order, fold, size)
        trials.append(_make_trial(pairs, hidden, kept, queries, query_mean, share, generator))
    return trials


def _part(order: Int64, fold: int, size: int) -> tuple[Int64, Int64]:
    """The held-out rows of one fold and the others."""
    rolled = np.roll(order, -fold * size)
    return rolled[:size], rolled[size:]


def _make_trial(
    pairs: Pairs,
    hidden: Int64,
    kept: Int64,
    queries: Float32 | None,
    query_mean: NDArray[np.float64] | None,
    share: float | None,
    generator: np.random.Generator,
) -> Trial:
    fit = pairs.take(kept)
    asked, hidden = _documents_to_ask(hidden, 0 if queries is None else len(queries))
    moved = pairs.source[asked]
    if query_mean is not None:
        moved = moved + (query_mean - fit.source.mean(axis=0, dtype=np.float64)).astype(np.float32)
    if queries is not None:
        drawn = generator.permutation(len(queries))[:MOST_QUERIES]
        moved = np.concatenate([queries[drawn], moved])
    queries = moved
    searched = np.concatenate([hidden, kept[: _fitted_among(len(hidden), len(kept), share)]])[:MOST_DOCUMENTS]
    truth, _ = search_exact(queries, pairs.source[searched], DEPTH)
    return Trial(fit, queries, pairs.source[searched], pairs.target[searched], truth, query_mean, share)


def _documents_to_ask(hidden: Int64, observed: int) -> tuple[Int64, Int64]:
    """Held-out rows to use as queries, and the others: all where none are observed, else what makes up a number."""
    wanted = MOST_QUERIES if not observed else max(0, FEW_QUERIES - observed)
    count = min(wanted, len(hidden) // 2)
    return hidden[:count], hidden[count:]


def _fitted_among(hidden: int, kept: int, share: float | None) -> int:
    """How many fitted documents to search beside the hidden ones, for the same share as in the whole corpus."""
    if share is None or share <= 0:
        return 0
    if share >= 1:
        return kept
    return min(kept, round(hidden * share / (1 - share)))
