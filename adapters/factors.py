"""Singular value decompositions that do not give up where LAPACK's quicker driver does."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def singular_values(matrix: NDArray[Any]) -> tuple[Float64, Float64, Float64]:
    """Left vectors (n, k), singular values (k,) and right vectors (k, m) of a matrix (n, m), k the smaller side.

    Numpy's driver (gesdd) does not converge on some matrices of low rank, such as the cross-covariance of fewer pairs
    than dimensions; scipy's gesvd, several times slower, does.
    """
    try:
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
    except np.linalg.LinAlgError:
        from scipy.linalg import svd  # slow to import

        left, values, right = svd(matrix, full_matrices=False, lapack_driver="gesvd")
    return left, values, right
