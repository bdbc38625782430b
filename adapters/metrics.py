"""Retrieval quality of ranked lists, as trec_eval computes it, one value for each query.

A ranking is an array of document rows (n, depth), best first. Judgements are one mapping {document row: gain} for
each query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from .search import Int64

Judgements: TypeAlias = Sequence[Mapping[int, float]]
Float64 = NDArray[np.float64]


def ndcg_at(rankings: Int64, judgements: Judgements, depth: int = 10) -> Float64:
    """nDCG with linear gains and the discount 1 / log2(rank + 1); 0 where a query has nothing relevant. Shape (n,)."""
    discounts = 1.0 / np.log2(np.arange(2, depth + 2))
    values = np.zeros(len(rankings))
    for at, (ranking, judged) in enumerate(zip(rankings, judgements, strict=True)):
        ideal = np.sort([gain for gain in judged.values() if gain > 0])[::-1][:depth]
        best = float(ideal @ discounts[: len(ideal)])
        if best > 0:
            gains = np.array([max(judged.get(int(row), 0.0), 0.0) for row in ranking[:depth]])
            values[at] = float(gains @ discounts[: len(gains)]) / best
    return values


def recall_at(rankings: Int64, judgements: Judgements, depth: int = 10, *, relevant_from: float = 1.0) -> Float64:
    """Share of the relevant documents (gain >= relevant_from) among the first `depth`. Shape (n,)."""
    values = np.zeros(len(rankings))
    for at, (ranking, judged) in enumerate(zip(rankings, judgements, strict=True)):
        relevant = {row for row, gain in judged.items() if gain >= relevant_from}
        if relevant:
            values[at] = len(relevant.intersection(ranking[:depth].tolist())) / len(relevant)
    return values


def mrr_at(rankings: Int64, judgements: Judgements, depth: int = 10, *, relevant_from: float = 1.0) -> Float64:
    """One over the rank of the first relevant document, 0 when none is among the first `depth`. Shape (n,)."""
    values = np.zeros(len(rankings))
    for at, (ranking, judged) in enumerate(zip(rankings, judgements, strict=True)):
        for rank, row in enumerate(ranking[:depth].tolist(), start=1):
            if judged.get(row, 0.0) >= relevant_from:
                values[at] = 1.0 / rank
                break
    return values


def overlap_at(rankings: Int64, truth: Int64, depth: int = 10) -> Float64:
    """Share of the first `depth` rows of `truth` (n, >= depth) that `rankings` also has among its first. Shape (n,)."""
    pairs = zip(rankings[:, :depth], truth[:, :depth], strict=True)
    return np.array([np.intersect1d(found, wanted).size / max(len(wanted), 1) for found, wanted in pairs])


def paired_bootstrap(
    first: NDArray[np.float64], second: NDArray[np.float64], *, rounds: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Resample queries and return (low, high, p) for the mean of first - second, both (n,).

    low and high bound the central 95 %; p is two-sided: twice the share of resampled means on the other side of zero,
    at least 1 / rounds.
    """
    means = resampled_means(first - second, rounds=rounds, seed=seed)
    tail = min(float(np.mean(means <= 0)), float(np.mean(means >= 0)))
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high), min(1.0, max(2 * tail, 1.0 / rounds))


def bootstrap_interval(values: NDArray[np.float64], *, rounds: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The central 95 % of the mean of values (n,) over resampled queries."""
    low, high = np.percentile(resampled_means(values, rounds=rounds, seed=seed), [2.5, 97.5])
    return float(low), float(high)


def resampled_means(values: NDArray[np.float64], *, rounds: int, seed: int) -> Float64:
    """Means of `rounds` resamples with replacement of values (n,), by multinomial counts. Shape (rounds,)."""
    generator = np.random.default_rng(seed)
    count = len(values)
    counts = generator.multinomial(count, np.full(count, 1.0 / count), size=rounds)
    means: Float64 = counts @ values / count
    return means
