"""Rows of vectors: the form that every map takes and gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from .base import Float32, Map, PairsError

LINE = 64  # bytes of a processor's cache


def as_rows(vectors: NDArray[Any], dim: int | None = None) -> Float32:
    """Return vectors as C-contiguous float32 (n, dim), copying only when they are not that already.

    Raises PairsError for an array that is not two-dimensional or has another dimension than `dim`.
    """
    if vectors.ndim != 2:
        raise PairsError(
            f"vectors have shape {vectors.shape}: expected two axes (n, dim); reshape a single one to (1, dim)"
        )
    if dim is not None and vectors.shape[1] != dim:
        raise PairsError(
            f"vectors have {vectors.shape[1]} dimensions, the map takes {dim}: were they made by its source model?"
        )
    return np.ascontiguousarray(vectors, dtype=np.float32)


def normalise_rows(vectors: Float32) -> Float32:
    """Scale each row (n, dim) to unit length in place and return the array; zero rows stay zero."""
    if len(vectors) == 1:  # the usual query: one product beats the general path threefold
        row = vectors[0]
        square = float(row @ row)
        if square > 0.0:
            row *= 1.0 / square**0.5
        return vectors
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    norms[norms == 0.0] = 1.0
    vectors /= norms[:, None]
    return vectors


def unit_rows(vectors: NDArray[Any]) -> Float32:
    """Return a float32 copy of vectors (n, dim) with rows of unit length."""
    return normalise_rows(np.array(vectors, dtype=np.float32, order="C"))


def aligned(rows: NDArray[Any]) -> NDArray[Any]:
    """The same rows from where a line of the cache begins on, copied only when they do not lie so: those of 64 bytes,
    or of a multiple, then touch no line that is not all theirs."""
    if rows.ctypes.data % LINE == 0:
        return rows
    room = np.empty(rows.nbytes + LINE, np.uint8)
    start = -room.ctypes.data % LINE
    laid = room[start : start + rows.nbytes].view(rows.dtype).reshape(rows.shape)
    laid[...] = rows
    return laid


def are_unit(vectors: Float32, tolerance: float = 1e-2) -> bool:
    """Say whether all rows (n, dim) have length 1 within the tolerance (float16 and int8 storage round)."""
    squares = np.einsum("ij,ij->i", vectors, vectors)
    return bool(np.all(np.abs(squares - 1.0) <= 2 * tolerance))


def unnormalised(fitted: Map) -> Map:
    """The same map giving rows as they come, for maps that add something before the last normalisation."""
    if not hasattr(fitted, "normalise"):
        return fitted
    return cast("Map", replace(cast("Any", fitted), normalise=False))
