"""Exact nearest neighbours in blocks of queries, so that no score matrix outgrows memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Float32

Int64 = NDArray[np.int64]
BLOCK_SCORES = 8_000_000  # scores held at once: 32 MB of float32
_STRIP = 16


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
    columns = np.sort(leading(scores, min(top, scores.shape[1])), axis=1)
    values = np.take_along_axis(scores, columns, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1)


def leading(scores: NDArray[Any], top: int) -> Int64:
    """Return the columns (n, top) of the highest of scores (n, m), in no order.

    Wide rows are first cut to the `top` strips with the highest maxima: the `top` highest scores cannot lie in more
    strips than that, and maxima are several times cheaper than a partition of the whole row.
    """
    width = scores.shape[1]
    strips = width // _STRIP
    if top >= width:
        return np.broadcast_to(np.arange(width), scores.shape).astype(np.int64)
    if strips <= 4 * top:
        return np.argpartition(scores, width - top, axis=1)[:, width - top :]
    folded = scores[:, : strips * _STRIP].reshape(len(scores), _STRIP, strips)
    chosen = np.argpartition(folded.max(axis=1), strips - top, axis=1)[:, strips - top :]
    columns = (chosen[:, :, None] + strips * np.arange(_STRIP)).reshape(len(scores), -1)
    rest = np.broadcast_to(np.arange(strips * _STRIP, width), (len(scores), width - strips * _STRIP))
    columns = np.concatenate([columns, rest], axis=1)
    found = np.argpartition(np.take_along_axis(scores, columns, axis=1), columns.shape[1] - top, axis=1)
    return np.take_along_axis(columns, found[:, columns.shape[1] - top :], axis=1)


def blocks(queries: int, documents: int) -> Iterator[tuple[int, int]]:
    """Cut a number of queries into (start, stop) so that each block's score matrix stays within BLOCK_SCORES."""
    size = max(1, BLOCK_SCORES // max(documents, 1))
    for start in range(0, queries, size):
        yield start, min(start + size, queries)
