"""Statistics of the queries that go by: a running mean and covariance for each model, without keeping any query.

A proxy sees the real query vectors of each model. Their mean is where queries live, which for asymmetric models is not
where passages live, and centring on it needs no text (`LinearMap.recentred`). Batches are merged by the pairwise update
of Chan, Golub and LeVeque (1979), so workers count on their own and merge later, in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .base import Arrays, Float32, PairsError, StoreError

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class QueryStatistics:
    """How many queries were seen, their mean (dim,) and their scatter (dim, dim), the sum of squared deviations.

    The scatter is (0, 0) where only the mean is kept: for large dimensions it would be the greater part of a worker.
    A frozen snapshot: `add` and `merge` give new ones, in float64, so that millions of queries keep their digits.
    """

    count: int
    mean: Float64
    scatter: Float64

    @classmethod
    def empty(cls, dim: int, *, spread: bool = True) -> Self:
        """Statistics of no queries, the neutral element of `merge`; without `spread` of means alone."""
        return cls(0, np.zeros(dim), np.zeros((dim, dim) if spread else (0, 0)))

    @property
    def has_spread(self) -> bool:
        """Whether more than the mean is kept."""
        return bool(self.scatter.size)

    @property
    def dim(self) -> int:
        return len(self.mean)

    @property
    def covariance(self) -> Float64:
        """The unbiased covariance (dim, dim); raises PairsError below 2 queries and where only the mean is kept."""
        if not self.has_spread:
            raise PairsError(f"query statistics: of {self.dim} dimensions only the mean is kept, not the covariance")
        if self.count < 2:
            raise PairsError(f"query statistics: {self.count} queries seen, a covariance needs at least 2")
        return self.scatter / (self.count - 1)

    def add(self, queries: NDArray[Any]) -> QueryStatistics:
        """The statistics with queries (n, dim) seen as well; rows that are not finite are left out.

        One product of (dim, n) with (n, dim): gather queries into batches before adding them. Raises PairsError for
        another dimension.
        """
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise PairsError(f"query statistics: queries of shape {queries.shape}, expected (n, {self.dim})")
        rows = queries[np.isfinite(queries).all(axis=1)].astype(np.float64)
        if not len(rows):
            return self
        mean = rows.mean(axis=0)
        if not self.has_spread:
            return self.merge(QueryStatistics(len(rows), mean, self.scatter))
        rows -= mean
        return self.merge(QueryStatistics(len(rows), mean, rows.T @ rows))

    def merge(self, other: QueryStatistics) -> QueryStatistics:
        """The statistics of both lots of queries (Chan, Golub and LeVeque 1979, equation 2.1 in matrix form)."""
        if other.dim != self.dim:
            raise PairsError(f"query statistics: {self.dim} and {other.dim} dimensions cannot be merged")
        count = self.count + other.count
        if count == 0:
            return self
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        if not (self.has_spread and other.has_spread):
            return QueryStatistics(count, mean, np.zeros((0, 0)))
        between = np.outer(apart, apart) * (self.count * other.count / count)
        return QueryStatistics(count, mean, self.scatter + other.scatter + between)

    def decayed(self, most: int) -> QueryStatistics:
        """The same mean and spread weighing at most `most` queries, so that new traffic can move them."""
        if self.count <= most:
            return self
        return QueryStatistics(most, self.mean, self.scatter * (most / self.count))

    def sample(self, count: int, *, seed: int = 0) -> Float32:
        """Draw `count` vectors (count, dim) of a Gaussian with this mean and covariance.

        They stand in for real queries where those must not be kept (`fit_distilled` learns from them). Raises
        PairsError below 2 queries.
        """
        rng = np.random.default_rng(seed)
        drawn = rng.multivariate_normal(self.mean, self.covariance, size=count, method="eigh")
        return drawn.astype(np.float32)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `restore` needs, for safetensors."""
        return {"count": np.array([self.count]), "mean": self.mean, "scatter": self.scatter}

    @classmethod
    def restore(cls, arrays: Arrays) -> Self:
        """The statistics whose `arrays()` these are; raises StoreError where shapes or values cannot be theirs."""
        missing = {"count", "mean", "scatter"} - set(arrays)
        if missing:
            raise StoreError(f"query statistics: {', '.join(sorted(missing))} missing; start them anew")
        count, mean, scatter = int(arrays["count"].ravel()[0]), arrays["mean"], arrays["scatter"]
        finite = bool(np.isfinite(mean).all() and np.isfinite(scatter).all())
        if count < 0 or mean.ndim != 1 or scatter.shape not in ((len(mean), len(mean)), (0, 0)) or not finite:
            raise StoreError(
                f"query statistics: count {count}, mean {mean.shape}, scatter {scatter.shape}, finite: {finite} are "
                "no statistics; start them anew"
            )
        return cls(count, mean.astype(np.float64), scatter.astype(np.float64))
