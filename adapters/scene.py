"""What strategies are measured on: the same documents as both models see them, queries, and what these should find."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .base import Float32
from .metrics import Judgements
from .search import Int64, search_exact

_DEPTH = 10


@dataclass(frozen=True)
class Scene:
    """Documents of both spaces, and queries with their judgements.

    old_documents (m, old_dim), new_documents (m, new_dim), new_queries (n, new_dim), old_queries (n, old_dim) or None
    where the old model is not at hand; judgements are {document row: gain} for each query. Rows are of unit length.
    """

    old_documents: Float32
    new_documents: Float32
    new_queries: Float32
    old_queries: Float32 | None
    judgements: Judgements

    def re_encoded(self, share: float, seed: int) -> Int64:
        """Rows of a share of the documents, in an order drawn by seed: a greater share only adds to it."""
        order = np.random.default_rng(seed).permutation(len(self.old_documents))
        return order[: round(share * len(order))]


def neighbours_as_truth(queries: Float32, documents: Float32) -> list[dict[int, float]]:
    """The ten nearest documents (m, dim) of each query (n, dim), worth 1 / log2(rank + 1), as judgements."""
    ranking, _ = search_exact(queries, documents, _DEPTH)
    gains = 1.0 / np.log2(np.arange(2, ranking.shape[1] + 2))
    return [dict(zip(row.tolist(), gains.tolist(), strict=True)) for row in ranking]
