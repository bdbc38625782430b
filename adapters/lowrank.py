"""Low-rank affine maps, x A B + b: a published baseline, and a cheap map for large dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from .base import JSON, Arrays, Float32, PairsError
from .factors import singular_values
from .linear import LinearMap, fit_system
from .vectors import normalise_rows


@dataclass(frozen=True)
class LowRankMap:
    """An affine map of limited rank: down (source_dim, rank), up (rank, target_dim), bias (target_dim,), float32."""

    kind: ClassVar[str] = "lowrank"
    down: Float32
    up: Float32
    bias: Float32
    normalise: bool = True

    @property
    def source_dim(self) -> int:
        return int(self.down.shape[0])

    @property
    def target_dim(self) -> int:
        return int(self.up.shape[1])

    def apply(self, vectors: Float32) -> Float32:
        """Map vectors (n, source_dim) to float32 (n, target_dim)."""
        narrow: Float32 = vectors @ self.down
        mapped: Float32 = narrow @ self.up
        mapped += self.bias
        return normalise_rows(mapped) if self.normalise else mapped

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"down": self.down, "up": self.up, "bias": self.bias}

    def settings(self) -> dict[str, JSON]:
        return {"normalise": self.normalise}

    @classmethod
    def restore(cls, arrays: Arrays, settings: Mapping[str, JSON]) -> Self:
        return cls(arrays["down"], arrays["up"], arrays["bias"], bool(settings["normalise"]))

    def recentred(self, source_mean: NDArray[Any], target_mean: NDArray[Any]) -> LowRankMap:
        """Return the same factors with `source_mean` sent to `target_mean` (query-side centring)."""
        bias = np.asarray(target_mean, np.float64) - np.asarray(source_mean, np.float64) @ self.down @ self.up
        return LowRankMap(self.down, self.up, bias.astype(np.float32), self.normalise)

    def to_linear(self) -> LinearMap:
        """Multiply the factors out."""
        return LinearMap(self.down @ self.up, self.bias, self.normalise)


def fit_low_rank(
    source: Float32,
    target: Float32,
    *,
    rank: int = 64,
    ridge: float = 0.1,
    pull: float = 1.0,
    centred: bool = True,
    normalise: bool = True,
) -> LowRankMap:
    """Fit by reduced-rank regression (Izenman 1975): the full solution, kept on its fitted values' leading directions.

    source (n, source_dim), target (n, target_dim). Raises PairsError for a rank below 1 or above
    the smaller dimension.
    """
    limit = min(source.shape[1], target.shape[1])
    if not 1 <= rank <= limit:
        raise PairsError(
            f"rank is {rank}: with {source.shape[1]} -> {target.shape[1]} dimensions it must be 1 to {limit}"
        )
    system = fit_system(source, target, centred=centred, normalise=normalise)
    weight = system.solve(ridge, pull=pull)
    root = np.sqrt(system.values)[:, None] * (system.basis.T @ weight)
    directions = singular_values(root)[2][:rank]
    down, up = weight @ directions.T, directions
    bias = system.target_mean - system.source_mean @ down @ up
    return LowRankMap(
        np.ascontiguousarray(down, np.float32), np.ascontiguousarray(up, np.float32), bias.astype(np.float32), normalise
    )
