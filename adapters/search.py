"""Exact nearest neighbours in blocks of queries, so that no score matrix outgrows memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Float32

Int64 = NDArray[np.int64]
BLOCK_SCORES = 8_000_000  # scores held at once: 32 MB of float32


def search_exact(queries: Float32, documents: Float32, top: int) -> tuple[Int64, Float32]:
    """Return the rows and inner products of the `top` best documents for each query, best first, both (n, top).

    queries (n, dim), documents (m, dim); `top` is cut at m. Equal scores are ordered by row.
    """
    top = min(top, len(documents))
    rows = np.empty((len(queries), top), np.int64)
    scores = np.empty((len(queries), top), np.float32)
    for start, stop in blocks(len(queries), len(documents)):
        rows[start:stop], scores[start:stop] = best(queries[start:stop] @ documents.T, top)
    return rows, scores


def best(scores: NDArray[Any], top: int) -> tuple[Int64, NDArray[Any]]:
    """Return the columns and values of the `top` highest of scores (n, m) in each row, best first, equal by column."""
    top = min(top, scores.shape[1])
    if top < scores.shape[1]:
        columns = np.argpartition(-scores, top - 1, axis=1)[:, :top]
        columns.sort(axis=1)
    else:
        columns = np.broadcast_to(np.arange(top), scores.shape)
    values = np.take_along_axis(scores, columns, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1)


def blocks(queries: int, documents: int) -> Iterator[tuple[int, int]]:
    """Cut a number of queries into (start, stop) so that each block's score matrix stays within BLOCK_SCORES."""
    size = max(1, BLOCK_SCORES // max(documents, 1))
    for start in range(0, queries, size):
        yield start, min(start + size, queries)
