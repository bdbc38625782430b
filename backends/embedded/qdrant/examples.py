"""Averages of example vectors: what a recommendation by mean searches for."""

from __future__ import annotations

from typing import Any

import numpy as np

from .engine import edge
from .errors import BadRequest, WrongInput


def average_vector(positives: list[Any], negatives: list[Any]) -> Any:
    """Mean of the positives, moved away from the mean of the negatives: 2 p - n (p without negatives).

    Multi-vectors have no mean: their rows are gathered instead, negated for the negatives.
    """
    if not positives:
        raise BadRequest("At least one positive vector ID required with this strategy")
    kinds = {_kind(vector) for vector in positives + negatives}
    if len(kinds) > 1:
        raise WrongInput(
            "Dense, sparse and multi-vectors cannot be averaged with each other; give examples of one kind"
        )
    kind = kinds.pop()
    if kind == "multi":
        rows = [row for vector in positives for row in vector]
        return rows + [[-number for number in row] for vector in negatives for row in vector]
    return _average_sparse(positives, negatives) if kind == "sparse" else _average_dense(positives, negatives)


def _kind(vector: Any) -> str:
    if isinstance(vector, edge.SparseVector):
        return "sparse"
    return "multi" if vector and isinstance(vector[0], list) else "dense"


def _average_dense(positives: list[list[float]], negatives: list[list[float]]) -> list[float]:
    widths = {len(vector) for vector in positives + negatives}
    if len(widths) > 1:
        raise WrongInput(f"Vectors of sizes {sorted(widths)} cannot be averaged; give examples of one size")
    positive = np.mean(np.asarray(positives, np.float32), axis=0)
    if not negatives:
        return list(positive.tolist())
    negative = np.mean(np.asarray(negatives, np.float32), axis=0)
    return list((positive + positive - negative).tolist())


def _average_sparse(positives: list[Any], negatives: list[Any]) -> Any:
    total: dict[int, float] = {}
    weight = (2 if negatives else 1) / len(positives)
    for vectors, share in ((positives, weight), (negatives, -1 / max(len(negatives), 1))):
        for vector in vectors:
            for index, value in zip(vector.indices, vector.values, strict=True):
                total[index] = total.get(index, 0.0) + share * value
    places = sorted(total)
    return edge.SparseVector(places, [total[index] for index in places])
