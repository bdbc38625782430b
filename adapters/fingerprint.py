"""Fingerprints: what vectors of a known model look like, so that a vector of another model is noticed.

Two models of one dimension cannot be told apart by shape, and their mix-up is silent everywhere else. A fingerprint
keeps the mean and the shrunk covariance of unit vectors. Its distance is the negative log-likelihood of the angular
central Gaussian (Tyler 1987) around that mean, which is free of scale: queries of another topic lie farther out than
the documents that were fitted, in every direction alike, and only the direction tells the models apart.

Measured on single queries by tests/bench/fingerprints.py: where several models of a dimension are known, compare them
(`classify`, `mismatched`), which also works for a corpus that was not fitted; `is_foreign` looks at one model alone,
needs vectors of the same corpus, and is much surer when observed queries were given to the fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan, log
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .base import Arrays, Float32, PairsError, StoreError
from .vectors import unit_rows

Float64 = NDArray[np.float64]

FEWEST = 50
MARGIN = 0.05  # a declared model may be this much farther than the nearest one before a vector counts as mismatched
MOST_DIRECTIONS = 256
SLACK = 0.55  # how much farther than held-out documents queries may lie: asymmetric models and other topics
SLACK_WITH_QUERIES = 0.25
_HELD_OUT = 0.2
_NEAREST = 1e-12  # a vector that is the mean itself has a finite distance


@dataclass(frozen=True)
class Fingerprint:
    """The mean and covariance of one model's unit vectors, as a few directions and an even rest.

    mean (dim,) and directions (k, dim) are float32. The inverse covariance is `rest` (1 / variance) in every direction
    plus `excess` (k,), negative, along the k widest ones. `level` is the log-determinant of the covariance over dim;
    distances above `threshold` count as foreign.
    """

    mean: Float32
    directions: Float32
    excess: Float32
    rest: float
    level: float
    threshold: float

    @property
    def dim(self) -> int:
        return len(self.mean)

    def distance(self, vectors: NDArray[Any]) -> Float64:
        """Distances (n,) of vectors (n, dim), of any length: log(Mahalanobis^2 / dim) + log-determinant / dim.

        Comparable between fingerprints of one dimension: the smallest is the likeliest model. A vector that is not
        finite has distance NaN. Raises PairsError for another dimension.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise PairsError(f"fingerprint: vectors of shape {vectors.shape}, it was fitted on (n, {self.dim})")
        if len(vectors) == 1:  # the usual query: half the time of the general path
            return np.array([self._one(vectors[0])])
        offsets = unit_rows(vectors)
        offsets -= self.mean
        along = offsets @ self.directions.T
        squares = np.einsum("ij,ij->i", offsets, offsets) * np.float32(self.rest)
        squares += (along * along) @ self.excess
        distances: Float64 = np.log(np.maximum(squares.astype(np.float64), _NEAREST) / self.dim) + self.level
        return distances

    def _one(self, vector: NDArray[Any]) -> float:
        row = vector.astype(np.float32, copy=False)
        length = float(row @ row) ** 0.5
        offset = row * (1.0 / length if length > 0 else 1.0) - self.mean
        along = self.directions @ offset
        square = float(offset @ offset) * self.rest + float((along * along) @ self.excess)
        return log((square if isnan(square) else max(square, _NEAREST)) / self.dim) + self.level

    def is_foreign(self, vectors: NDArray[Any]) -> NDArray[np.bool_]:
        """Say for each vector (n, dim) whether it is farther out than this model's own; True where not finite."""
        return ~(self.distance(vectors) <= self.threshold)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `restore` needs, for safetensors."""
        scalars = np.array([self.rest, self.level, self.threshold])
        return {"mean": self.mean, "directions": self.directions, "excess": self.excess, "scalars": scalars}

    @classmethod
    def restore(cls, arrays: Arrays) -> Self:
        """The fingerprint whose `arrays()` these are; raises StoreError where shapes do not fit together."""
        missing = {"mean", "directions", "excess", "scalars"} - set(arrays)
        if missing:
            raise StoreError(f"fingerprint: {', '.join(sorted(missing))} missing; fit the adapter again")
        mean, directions, excess = (arrays[name].astype(np.float32) for name in ("mean", "directions", "excess"))
        if directions.shape != (len(excess), len(mean)) or arrays["scalars"].shape != (3,):
            raise StoreError(
                f"fingerprint: directions {directions.shape} do not fit mean {mean.shape} and excess {excess.shape}; "
                "fit the adapter again"
            )
        return cls(mean, directions, excess, *map(float, arrays["scalars"]))


def fit_fingerprint(
    vectors: NDArray[Any],
    *,
    queries: NDArray[Any] | None = None,
    directions: int | None = None,
    false_refusals: float = 0.001,
    seed: int = 0,
) -> Fingerprint:
    """Fit what a model's vectors look like from documents (n, dim) and, where at hand, observed queries (m, dim).

    The covariance is shrunk to an even one as by Ledoit and Wolf (2004) and kept in `directions` directions (default
    two thirds of dim, at most 256). The threshold is the distance that a share `false_refusals` of held-out vectors
    exceeds, plus SLACK, or SLACK_WITH_QUERIES when queries were given, for vectors unlike those at hand.
    Raises PairsError for fewer than 50 vectors, vectors that are not finite, or vectors that are all the same.
    """
    rng = np.random.default_rng(seed)
    parts = [_checked(part, name) for part, name in ((vectors, "documents"), (queries, "queries")) if part is not None]
    fitted, held_out = zip(*(_split(part, rng) for part in parts), strict=True)
    trial = _fit(np.concatenate(fitted), directions, threshold=np.inf)
    reach = max(float(np.quantile(trial.distance(part), 1.0 - false_refusals)) for part in held_out)
    slack = SLACK if queries is None else SLACK_WITH_QUERIES
    return _fit(np.concatenate(parts), directions, threshold=reach + slack)


def classify(vectors: NDArray[Any], fingerprints: Mapping[str, Fingerprint]) -> list[str]:
    """Name the likeliest model for each vector (n, dim) among the fingerprints of that dimension.

    Raises PairsError when no fingerprint has the vectors' dimension.
    """
    names, distances = _distances(vectors, fingerprints)
    return [names[at] for at in distances.argmin(axis=0)]


def mismatched(
    vectors: NDArray[Any], declared: str, fingerprints: Mapping[str, Fingerprint], *, margin: float = MARGIN
) -> NDArray[np.bool_]:
    """Say for each vector (n, dim) whether another known model fits it better than the declared one, by `margin`.

    Where no other model of the dimension is known, whether it is foreign to the declared one. Raises PairsError when
    the declared model has no fingerprint of the vectors' dimension.
    """
    names, distances = _distances(vectors, fingerprints)
    if declared not in names:
        raise PairsError(f"fingerprint: none of dimension {vectors.shape[1]} for {declared!r}, only for {names}")
    if len(names) == 1:
        return fingerprints[declared].is_foreign(vectors)
    fits: NDArray[np.bool_] = distances[names.index(declared)] <= distances.min(axis=0) + margin
    return ~fits


def _distances(vectors: NDArray[Any], fingerprints: Mapping[str, Fingerprint]) -> tuple[list[str], Float64]:
    names = [name for name, fingerprint in fingerprints.items() if fingerprint.dim == vectors.shape[-1]]
    if not names:
        dims = {name: fingerprint.dim for name, fingerprint in fingerprints.items()}
        raise PairsError(f"fingerprint: no known model has {vectors.shape[-1]} dimensions, known are {dims}")
    return names, np.stack([fingerprints[name].distance(vectors) for name in names])


def _checked(vectors: NDArray[Any], name: str) -> Float32:
    if vectors.ndim != 2 or len(vectors) < FEWEST:
        raise PairsError(f"fingerprint: {name} of shape {vectors.shape}, at least {FEWEST} rows (n, dim) are needed")
    bad = int(np.sum(~np.isfinite(vectors).all(axis=1)))
    if bad:
        raise PairsError(f"fingerprint: {bad} of {len(vectors)} {name} are not finite")
    return unit_rows(vectors)


def _split(rows: Float32, rng: np.random.Generator) -> tuple[Float32, Float32]:
    order = rng.permutation(len(rows))
    held_out = int(_HELD_OUT * len(rows))
    return rows[order[held_out:]], rows[order[:held_out]]


def _fit(rows: Float32, directions: int | None, *, threshold: float) -> Fingerprint:
    mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    values, basis = np.linalg.eigh(_shrunk_covariance(rows - mean))
    dim = len(mean)
    count = min(directions or min(2 * dim // 3, MOST_DIRECTIONS), dim - 1)
    widest, spare = values[::-1][:count], float(values[: dim - count].mean())
    return Fingerprint(
        mean=mean,
        directions=np.ascontiguousarray(basis[:, ::-1][:, :count].T, np.float32),
        excess=(1.0 / widest - 1.0 / spare).astype(np.float32),
        rest=1.0 / spare,
        level=float((np.log(widest).sum() + (dim - count) * np.log(spare)) / dim),
        threshold=threshold,
    )


def _shrunk_covariance(centred: Float32) -> Float64:
    """Ledoit and Wolf (2004), equations for pi, gamma and the weight of mu * identity, from centred rows (n, dim)."""
    count, dim = centred.shape
    sample = (centred.T @ centred).astype(np.float64) / count
    even = float(np.trace(sample)) / dim
    if not even > 1e-10:
        raise PairsError(f"fingerprint: {count} vectors that are all the same tell nothing about their model")
    apart = float(((sample - even * np.eye(dim)) ** 2).sum())
    fourth = float((np.einsum("ij,ij->i", centred, centred).astype(np.float64) ** 2).mean())
    noise = (fourth - float((sample**2).sum())) / count
    weight = min(1.0, max(noise / apart, 1e-3)) if apart > 0 else 1.0
    shrunk: Float64 = (1.0 - weight) * sample + weight * even * np.eye(dim)
    return shrunk
