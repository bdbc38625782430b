"""Score calibration: what a score of one space is in another, for thresholds (score_threshold, radius, range_filter).

A client that moved to a new model sends thresholds on the new model's scale, while the hits are scored by the adapted
query in the old index. `sample_scores` makes pairs of such scores, `fit_calibration` learns the rising curve between
them, `Calibration.apply` moves a threshold.

Two curves can be fitted. `match` (the default) gives the threshold that as many hits pass as before; `mean` is the
isotonic regression, the expected score of the same document. A regression leans towards the mean, so the expected score
of a very good document is one that many worse documents reach too, and a threshold moved by it lets several times as
many hits through (tests/adapters/test_calibrate.py measures both). Neither is meant for merging the hits of two spaces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .base import Arrays, Float32, PairsError, StoreError
from .vectors import unit_rows

Method = Literal["match", "mean"]
Pairing = Literal["rank", "document"]
Metric = Literal["cosine", "dot", "euclid", "manhattan"]
Float64 = NDArray[np.float64]

_BLOCK = 64  # queries scored at once, which bounds memory
_DISTANCES = {"euclid": "euclidean", "manhattan": "cityblock"}
_FEWEST = 20
_LINE_SHARE = 0.01  # of the straight line in the curve: keeps it strictly rising where the regression is flat


@dataclass(frozen=True)
class Calibration:
    """A strictly rising, piecewise linear curve from source scores to target scores.

    source, target: (knots,), both strictly rising. Beyond the first and last knot the curve goes on straight with
    `slope`, the least-squares slope of the whole sample: the curve's own ends rest on the fewest scores. Nothing is
    clipped, so a threshold beyond what the target metric can reach (a cosine above 1) matches nothing, as it should.
    """

    source: Float64
    target: Float64
    slope: float

    @overload
    def apply(self, scores: float) -> float: ...
    @overload
    def apply(self, scores: NDArray[Any]) -> Float64: ...
    def apply(self, scores: float | NDArray[Any]) -> float | Float64:
        """Scores of the source space on the target's scale; different scores stay different and in order."""
        x = np.asarray(scores, dtype=np.float64)
        below, above = np.minimum(x - self.source[0], 0.0), np.maximum(x - self.source[-1], 0.0)
        moved = np.interp(x, self.source, self.target) + self.slope * (below + above)
        return float(moved) if moved.ndim == 0 else moved

    def invert(self) -> Calibration:
        """The exact inverse curve: scores moved there and back are the same, so thresholds and hits agree.

        For the expectation of source scores given target ones, fit a second calibration the other way round.
        """
        return Calibration(self.target, self.source, 1.0 / self.slope)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `restore` needs, for safetensors."""
        return {"source": self.source, "target": self.target, "slope": np.array([self.slope])}

    @classmethod
    def restore(cls, arrays: Arrays) -> Self:
        """The calibration whose `arrays()` these are; raises StoreError where they are no rising curve."""
        missing = {"source", "target", "slope"} - set(arrays)
        if missing:
            raise StoreError(f"calibration: {', '.join(sorted(missing))} missing; fit the adapter again")
        source, target = (np.asarray(arrays[name], dtype=np.float64) for name in ("source", "target"))
        slope = float(arrays["slope"].ravel()[0])
        rising = all(bool(np.all(np.diff(knots) > 0)) for knots in (source, target))
        if source.shape != target.shape or source.ndim != 1 or len(source) < 2 or not rising or not 0 < slope < np.inf:
            raise StoreError(
                f"calibration: {source.shape} source and {target.shape} target knots with slope {slope} are not a "
                "strictly rising curve; fit the adapter again"
            )
        return cls(source, target, slope)


def fit_calibration(
    source_scores: ArrayLike, target_scores: ArrayLike, *, method: Method = "match", knots: int = 256
) -> Calibration:
    """Fit the strictly rising curve from source_scores to target_scores, both (n,), with at most `knots` knots.

    "match" pairs the two samples quantile by quantile (equipercentile equating) and wants scores by rank from
    `sample_scores`; "mean" is isotonic regression over scores by document. Flat stretches are joined between their
    centres, so that ties keep their order (centred isotonic regression, Oron and Flournoy 2017), and knots lie closer
    towards both ends, where thresholds are set. For distances (Euclid, Manhattan) nothing changes: both sides of the
    curve are then upper bounds.
    Raises PairsError when lengths differ, a score is not finite, fewer than 20 pairs are given, or the scores of one
    space do not rise with those of the other.
    """
    source, target = _checked(source_scores, target_scores)
    if method == "match":
        source, target = np.sort(source), np.sort(target)
    order = np.argsort(source, kind="stable")
    source, target = source[order], target[order]
    slope = _slope(source, target)
    x, y = _pool(*_tied(source, target), most=_affordable(knots, len(source)))
    line = target.mean() + slope * (x - source.mean())
    return Calibration(x, (1.0 - _LINE_SHARE) * y + _LINE_SHARE * line, slope)


def sample_scores(
    queries_new: Float32,
    docs_new: Float32,
    queries_adapted: Float32,
    docs_old: Float32,
    metric: Metric,
    *,
    pairing: Pairing = "rank",
    top: int = 100,
) -> tuple[Float64, Float64]:
    """Scores of the same queries in the new and the old space: what `fit_calibration` takes.

    queries_new (q, new_dim) are held-out queries of the new model (the adapter must not have been fitted on them),
    queries_adapted (q, old_dim) the same ones mapped; docs_new (n, new_dim) and docs_old (n, old_dim) are the same
    documents. Each query gives its scores at the `top` best ranks and at as many again, spread geometrically over the
    rest, because thresholds are set near the top. By "rank" both spaces are ranked on their own and scores of equal
    rank paired (for "match"); by "document" the new score chooses and the old score is that of the same documents (for
    "mean": choosing by the source score leaves the regression on it unbiased).
    Returns two arrays (q * up to 2 top,).
    """
    if len(queries_new) != len(queries_adapted) or len(docs_new) != len(docs_old):
        raise PairsError(
            f"calibration: {len(queries_new)} new and {len(queries_adapted)} adapted queries, {len(docs_new)} new and "
            f"{len(docs_old)} old documents; each must be the same rows in both spaces"
        )
    ranks = _ranks(len(docs_new), top)
    sign = -1.0 if metric in ("cosine", "dot") else 1.0
    ours, theirs = [], []
    for rows in np.array_split(np.arange(len(queries_new)), -(-len(queries_new) // _BLOCK)):
        new, old = score(queries_new[rows], docs_new, metric), score(queries_adapted[rows], docs_old, metric)
        chosen = np.argsort(sign * new, axis=1)[:, ranks]
        other = np.argsort(sign * old, axis=1)[:, ranks] if pairing == "rank" else chosen
        ours.append(np.take_along_axis(new, chosen, axis=1).ravel())
        theirs.append(np.take_along_axis(old, other, axis=1).ravel())
    return np.concatenate(ours), np.concatenate(theirs)


def score(queries: Float32, docs: Float32, metric: Metric) -> Float64:
    """Scores (q, n) of queries (q, dim) against docs (n, dim) as Qdrant reports them: similarities, or distances."""
    scores: Float64
    if metric == "cosine":
        scores = (unit_rows(queries) @ unit_rows(docs).T).astype(np.float64)
    elif metric == "dot":
        scores = (queries @ docs.T).astype(np.float64)
    elif metric in _DISTANCES:
        from scipy.spatial.distance import cdist  # not at the top: serving needs none of scipy's 41 MB a worker

        scores = cdist(queries, docs, _DISTANCES[metric])  # by differences: exact also for near duplicates
    else:
        raise PairsError(f"calibration: metric {metric!r} is none of cosine, dot, euclid, manhattan")
    return scores


def _checked(source_scores: ArrayLike, target_scores: ArrayLike) -> tuple[Float64, Float64]:
    source, target = (np.asarray(s, dtype=np.float64).ravel() for s in (source_scores, target_scores))
    if len(source) != len(target):
        raise PairsError(f"calibration: {len(source)} source scores but {len(target)} target scores")
    if len(source) < _FEWEST:
        raise PairsError(
            f"calibration: {len(source)} pairs of scores, at least {_FEWEST} are needed; give more queries"
        )
    bad = int(np.sum(~(np.isfinite(source) & np.isfinite(target))))
    if bad:
        raise PairsError(f"calibration: {bad} of {len(source)} pairs of scores are not finite")
    _slope(source, target)  # before "match" sorts them: sorted scores rise together whatever they are
    return source, target


def _slope(source: Float64, target: Float64) -> float:
    spread = source - source.mean()
    square, level = float(spread @ spread), float(target.std())
    slope = float(spread @ target) / square if square > 0 else 0.0
    if not slope * float(source.std()) > 1e-3 * level:  # the correlation of the two
        raise PairsError(
            f"calibration: target scores do not rise with source scores (slope {slope:.3g} over {len(source)} pairs); "
            "check that both are similarities or both distances, and that queries and documents are in the same order"
        )
    return slope


def _tied(source: Float64, target: Float64) -> tuple[Float64, Float64, Float64]:
    """Equal source scores as one, at their mean target, with how many they were."""
    values, starts, counts = np.unique(source, return_index=True, return_counts=True)
    return values, np.add.reduceat(target, starts) / counts, counts.astype(np.float64)


def _pool(x: Float64, y: Float64, weights: Float64, *, most: int) -> tuple[Float64, Float64]:
    """Isotonic blocks at their centres, neighbours pooled to about `most` knots, closer towards both ends."""
    from scipy.optimize import isotonic_regression  # see sample_scores

    blocks = isotonic_regression(y, weights=weights).blocks[:-1].astype(np.intp)
    place = np.minimum(np.add.reduceat(weights, blocks).cumsum() / weights.sum(), 1.0)
    group = np.ceil(np.arccos(1.0 - 2.0 * place) / np.pi * most - 1e-9)
    first = np.flatnonzero(np.diff(group, prepend=-1.0))
    starts = blocks[first] if len(first) > 1 else blocks[[0, -1]]  # a curve needs two knots
    mass = np.add.reduceat(weights, starts)
    return np.add.reduceat(weights * x, starts) / mass, np.add.reduceat(weights * y, starts) / mass


def _affordable(knots: int, count: int) -> int:
    """Knots such that the outermost one still rests on about five scores, (pi / 2 knots)^2 of the sample."""
    return max(2, min(knots, int(np.pi / 2 * np.sqrt(count / 5))))


def _ranks(count: int, top: int) -> NDArray[np.intp]:
    head = np.arange(min(top, count))
    tail = np.geomspace(top, count - 1, num=top).astype(np.intp) if count > top else np.empty(0, np.intp)
    return np.unique(np.concatenate([head, tail]))
