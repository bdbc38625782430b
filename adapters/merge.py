"""Merge what two spaces say while a collection is half migrated: scores are made alike, then both models have a say.

Old-space scores of adapted queries and new-space scores of true ones do not compare. For each query old scores are
moved so that documents with both scores have the same mean and spread in both: those of the old index's best that are
migrated (`match_hits`). They were found by their old scores, which are luckier than new ones, and so are the others
that the old index found: what is moved together compares. Where a query has too few of them, a sample of documents
that exist in both spaces is scored in both, and the best of either compared (`TailMatcher`), which ranks .001 to .004
nDCG@10 worse from a quarter migrated on. (A regression of one score on the other predicts means, and so pulls the best
unmigrated documents below lucky migrated ones.)

A document that is migrated already has both scores, and a mean of both mostly ranks better than either
(`blend_hits`): two models err differently. Where the new model is weaker than the adapted query, true scores alone lose
to not migrating at all; where it is much stronger, the mean still takes most of the gain. Likewise a query that the old
model can encode asks the old index better together with the adapted one than alone (`blend_queries`). How much each
counts: weights.py. tests/bench/quality.py measures both.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .base import Float32, PairsError
from .vectors import as_rows, normalise_rows, unit_rows
from .weights import TRUST

Float64 = NDArray[np.float64]
Key = TypeVar("Key", bound=Hashable)
FEWEST = 20
SHARE = 0.02
FEWEST_COMMON = 5
_LEAST_SPREAD = 1e-6


@dataclass(frozen=True)
class TailMatch:
    """For each of n queries the line from old-space scores to new-space ones: scale (n,) and shift (n,)."""

    scale: Float64
    shift: Float64

    def apply(self, scores: NDArray[Any]) -> Float64:
        """Old-space scores (n, hits), or (hits,) for a single query, on the new space's scale."""
        if scores.ndim == 1:
            return np.asarray(scores * self.scale[0] + self.shift[0], np.float64)
        return np.asarray(scores * self.scale[:, None] + self.shift[:, None], np.float64)


@dataclass(frozen=True)
class TailMatcher:
    """The same documents in both spaces, new (n, new_dim) and old (n, old_dim); their best `tail` are compared."""

    new: Float32
    old: Float32
    tail: int

    def match(self, queries_new: Float32, queries_old: Float32) -> TailMatch:
        """Fit the line for queries as the new model made them (n, new_dim) and as they ask the old index (n, old_dim).

        Scores are inner products. For Euclidean distances pass vectors of unit length and compare by inner product
        too: on them both order alike.
        """
        new_mean, new_spread = self._tails(queries_new @ self.new.T)
        old_mean, old_spread = self._tails(queries_old @ self.old.T)
        scale = np.where(old_spread > _LEAST_SPREAD, new_spread / np.maximum(old_spread, _LEAST_SPREAD), 1.0)
        return TailMatch(scale, new_mean - scale * old_mean)

    def _tails(self, scores: Float32) -> tuple[Float64, Float64]:
        """Mean and standard deviation (n,) of the best `tail` of scores (n, sample)."""
        best = np.partition(scores, scores.shape[1] - self.tail, axis=1)[:, -self.tail :].astype(np.float64)
        return best.mean(axis=1), best.std(axis=1)


def fit_matcher(new: NDArray[Any], old: NDArray[Any], *, sample: int = 2_000, seed: int = 0) -> TailMatcher:
    """Keep a random sample of documents that are in both spaces: new (n, new_dim), old (n, old_dim).

    The tail is the best 2 %, at least 20. Raises PairsError for unequal counts or fewer than 20 documents.
    """
    if len(new) != len(old) or len(new) < FEWEST:
        raise PairsError(
            f"{len(new)} new and {len(old)} old vectors: tail matching needs the same documents, at least {FEWEST}"
        )
    rows = np.sort(np.random.default_rng(seed).permutation(len(new))[:sample])
    tail = max(FEWEST, round(SHARE * len(rows)))
    return TailMatcher(as_rows(new[rows]), as_rows(old[rows]), tail)


def match_hits(new: Mapping[Key, float], old: Sequence[tuple[Key, float]]) -> tuple[float, float] | None:
    """Scale and shift that give hits with both scores the same mean and spread in both; None below FEWEST_COMMON or
    without a spread.

    new: true scores by key; old: hits (key, score) of the old index, which are what is to be moved.
    """
    both = np.array([(new[key], score) for key, score in old if key in new], np.float64).reshape(-1, 2)
    if len(both) < FEWEST_COMMON:
        return None
    (new_mean, old_mean), (new_spread, old_spread) = both.mean(axis=0), both.std(axis=0)
    if min(old_spread, new_spread) < _LEAST_SPREAD:
        return None
    scale = float(new_spread / old_spread)
    return scale, float(new_mean - scale * old_mean)


def blend_hits(
    new: Sequence[tuple[Key, float]], old: Sequence[tuple[Key, float]], limit: int, *, trust: float = TRUST
) -> list[tuple[Key, float]]:
    """Rank hits (key, score) of one query by both models' scores, best first, at most `limit`.

    new: true scores of documents that the new index holds. old: the best of the WHOLE old index, also of documents that
    are migrated, best first, their scores moved to the new scale. A key in both gets trust * new + (1 - trust) * old;
    with a trust of 1 true scores count alone. A key that only the new index named has an old score below all that were
    named, and the lowest stands for it. One that only the old index named keeps its moved score: it counts as not
    migrated, so give true scores of old candidates that are. Equal scores: new before old, then as given.
    """
    known = dict(old)
    lowest = min(known.values(), default=None)
    both = [
        (key, score if lowest is None else trust * score + (1.0 - trust) * known.get(key, lowest)) for key, score in new
    ]
    true = {key for key, _ in new}
    both += [(key, score) for key, score in old if key not in true]
    return sorted(both, key=lambda hit: -hit[1])[:limit]


def blend_queries(legacy: Float32, adapted: Float32, weight: float) -> Float32:
    """Ask the old index with both models: legacy-encoded and adapted queries (n, old_dim) as one unit vector each.

    `weight` is the adapted one's, 0 to 1 (weights.py).
    """
    share = np.float32(weight)
    mixed = (np.float32(1.0) - share) * unit_rows(legacy) + share * unit_rows(adapted)
    return normalise_rows(mixed)
