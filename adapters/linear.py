"""Linear maps: the continuum from orthogonal Procrustes to ridge regression.

For centred pairs X (n, source_dim) and Y (n, target_dim) the weight minimises

    |X W - Y|^2 + ridge * mean_eigenvalue(X'X) * |W - pull * s Q|^2

where Q is the orthogonal Procrustes solution (Schönemann 1966: Q = U V' of the singular value decomposition of X'Y;
with unequal dimensions a partial isometry) and s its least-squares scale, trace(S) / |X|^2. `pull = 1` shrinks
towards the scaled rotation, `pull = 0` towards zero (ordinary ridge regression); `ridge = inf` is Procrustes itself
and `ridge = 0` least squares. Ridge is relative to the data, so that one grid of values serves every dimension and
number of pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isinf
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from .base import JSON, Arrays, Float32, PairsError
from .factors import singular_values
from .vectors import normalise_rows

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class LinearMap:
    """An affine map, x W + b, with means folded into b; rows are scaled to unit length when it normalises.

    weight (source_dim, target_dim) and bias (target_dim,) are float32.
    """

    kind: ClassVar[str] = "linear"
    weight: Float32
    bias: Float32
    normalise: bool = True

    @property
    def source_dim(self) -> int:
        return int(self.weight.shape[0])

    @property
    def target_dim(self) -> int:
        return int(self.weight.shape[1])

    def apply(self, vectors: Float32) -> Float32:
        """Map vectors (n, source_dim) to float32 (n, target_dim)."""
        mapped: Float32 = vectors @ self.weight
        mapped += self.bias
        return normalise_rows(mapped) if self.normalise else mapped

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"weight": self.weight, "bias": self.bias}

    def settings(self) -> dict[str, JSON]:
        return {"normalise": self.normalise}

    @classmethod
    def restore(cls, arrays: Arrays, settings: Mapping[str, JSON]) -> Self:
        return cls(arrays["weight"], arrays["bias"], bool(settings["normalise"]))

    def recentred(self, source_mean: NDArray[Any], target_mean: NDArray[Any]) -> LinearMap:
        """Return the same weight with `source_mean` (source_dim,) sent to `target_mean` (target_dim,).

        This is query-side centring when `source_mean` is the mean of observed queries: asymmetric models put queries
        elsewhere than passages, and the weight was fitted on passages.
        """
        bias = np.asarray(target_mean, np.float64) - np.asarray(source_mean, np.float64) @ self.weight.astype(
            np.float64
        )
        return LinearMap(self.weight, bias.astype(np.float32), self.normalise)


@dataclass(frozen=True)
class LinearSystem:
    """The sufficient statistics of paired vectors: every member of the continuum is solved from them.

    source_mean (source_dim,) and target_mean (target_dim,) are zero when not centred. values (source_dim,) and basis
    (source_dim, source_dim) decompose X'X; cross is X'Y and rotation Q, both (source_dim, target_dim); scale is s.
    """

    source_mean: Float64
    target_mean: Float64
    values: Float64
    basis: Float64
    cross: Float64
    rotation: Float64
    scale: float
    normalise: bool

    @property
    def mean_value(self) -> float:
        return float(self.values.mean())

    def solve(self, ridge: float, *, pull: float = 1.0) -> Float64:
        """Return the weight (source_dim, target_dim) for a relative ridge and a pull towards the scaled rotation."""
        if ridge < 0:
            raise PairsError(f"ridge is {ridge}: it must be 0 (least squares) or more")
        anchor = pull * self.scale * self.rotation
        if isinf(ridge):
            return anchor
        strength = ridge * self.mean_value
        inverse = _invert(self.values + strength, floor=self.values[-1] * len(self.values) * 1e-12)
        weight: Float64 = (self.basis * inverse) @ (self.basis.T @ (self.cross + strength * anchor))
        return weight

    def fit(self, ridge: float, *, pull: float = 1.0) -> LinearMap:
        """Return the map of `solve` with both means folded in."""
        return self.to_map(self.solve(ridge, pull=pull))

    def to_map(self, weight: Float64) -> LinearMap:
        """Fold the means around a weight (source_dim, target_dim)."""
        bias = self.target_mean - self.source_mean @ weight
        return LinearMap(np.ascontiguousarray(weight, np.float32), bias.astype(np.float32), self.normalise)


def fit_system(
    source: Float32,
    target: Float32,
    *,
    centred: bool = True,
    normalise: bool = True,
    weights: NDArray[Any] | None = None,
) -> LinearSystem:
    """Gather the statistics of pairs source (n, source_dim), target (n, target_dim); `weights` (n,) may favour some."""
    if len(source) != len(target) or len(source) < 2:
        raise PairsError(f"{len(source)} source and {len(target)} target vectors: a fit needs equally many, at least 2")
    share = np.full(len(source), 1.0) if weights is None else np.asarray(weights, np.float64)
    total = share.sum()
    source_mean, target_mean = np.zeros(source.shape[1]), np.zeros(target.shape[1])
    if centred:
        source_mean, target_mean = share @ source / total, share @ target / total
    root = np.sqrt(share)[:, None]
    x, y = root * (source - source_mean), root * (target - target_mean)
    values, basis = np.linalg.eigh(x.T @ x)
    values = np.maximum(values, 0.0)
    cross = x.T @ y
    left, singular, right = singular_values(cross)
    spread = float(values.sum())
    scale = float(singular.sum()) / spread if spread > 0 else 0.0
    return LinearSystem(source_mean, target_mean, values, basis, cross, left @ right, scale, normalise)


def fit_linear(
    source: Float32,
    target: Float32,
    *,
    ridge: float = 0.1,
    pull: float = 1.0,
    centred: bool = True,
    normalise: bool = True,
    query_mean: NDArray[Any] | None = None,
) -> LinearMap:
    """Fit one linear map from pairs source (n, source_dim), target (n, target_dim).

    `query_mean` (source_dim,) centres what will be mapped on another mean than that of the pairs (query-side centring).
    Raises PairsError when the pairs are not equally many or fewer than 2.
    """
    system = fit_system(source, target, centred=centred, normalise=normalise)
    fitted = system.fit(ridge, pull=pull)
    if query_mean is None:
        return fitted
    return fitted.recentred(query_mean, target.mean(axis=0, dtype=np.float64))


def fit_procrustes(source: Float32, target: Float32, *, centred: bool = True, normalise: bool = True) -> LinearMap:
    """Fit the orthogonal Procrustes map, a rotation without scale: the published baseline."""
    system = fit_system(source, target, centred=centred, normalise=normalise)
    return system.to_map(system.rotation)


def scale_columns(fitted: LinearMap, source: Float32, target: Float32) -> LinearMap:
    """Scale each output dimension by least squares on the pairs (diagonal scaling in Drift-Adapter, 2509.23471)."""
    raw = source @ fitted.weight + fitted.bias
    squares = np.einsum("ij,ij->j", raw, raw).astype(np.float64)
    products = np.einsum("ij,ij->j", raw, target).astype(np.float64)
    gains = np.divide(products, squares, out=np.ones_like(products), where=squares > 0).astype(np.float32)
    return LinearMap(fitted.weight * gains, fitted.bias * gains, fitted.normalise)


def _invert(values: Float64, floor: float) -> Float64:
    """Invert eigenvalues, leaving out directions that the pairs do not span (pseudo-inverse)."""
    inverse = np.zeros_like(values)
    np.divide(1.0, values, out=inverse, where=values > floor)
    return inverse
