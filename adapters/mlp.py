"""A small network on top of another map: y = f(x) + relu(x A + a) B + b, started as f itself and held to it.

The last layer starts at zero, so training leaves from the base map (usually the best linear one). Fitting needs torch
(the `train` extra); what is fitted is plain arrays, applied by numpy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from .base import JSON, Arrays, Float32, Map, PairsError, StoreError
from .registry import describe_map, restore_map, with_prefix, without_prefix
from .training import Score, best_of, load_torch, to_numpy
from .vectors import normalise_rows

_LAYERS = ("inner", "inner_bias", "outer", "outer_bias")
_FEWEST = 64


@dataclass(frozen=True)
class MlpMap:
    """A base map and a correction: inner (source_dim, hidden), inner_bias (hidden,), outer (hidden, target_dim),
    outer_bias (target_dim,), float32; rows are scaled to unit length when it normalises."""

    kind: ClassVar[str] = "mlp"
    base: Map
    inner: Float32
    inner_bias: Float32
    outer: Float32
    outer_bias: Float32
    normalise: bool = True

    @property
    def source_dim(self) -> int:
        return self.base.source_dim

    @property
    def target_dim(self) -> int:
        return self.base.target_dim

    def apply(self, vectors: Float32) -> Float32:
        """Map vectors (n, source_dim) to float32 (n, target_dim)."""
        hidden: Float32 = vectors @ self.inner
        hidden += self.inner_bias
        np.maximum(hidden, 0.0, out=hidden)
        mapped = self.base.apply(vectors)
        mapped += hidden @ self.outer
        mapped += self.outer_bias
        return normalise_rows(mapped) if self.normalise else mapped

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {name: getattr(self, name) for name in _LAYERS} | with_prefix("base", self.base.arrays())

    def settings(self) -> dict[str, JSON]:
        return {"normalise": self.normalise, "base": describe_map(self.base)}

    @classmethod
    def restore(cls, arrays: Arrays, settings: Mapping[str, JSON]) -> Self:
        described = settings["base"]
        if not isinstance(described, dict):
            raise StoreError(f"mlp: base is {type(described).__name__}: expected an object with kind and settings")
        return cls(
            restore_map(without_prefix("base", arrays), described),
            *(arrays["inner"], arrays["inner_bias"], arrays["outer"], arrays["outer_bias"]),
            normalise=bool(settings["normalise"]),
        )


def fit_mlp(
    source: Float32,
    target: Float32,
    base: Map,
    *,
    score: Score,
    hidden: int = 256,
    epochs: int = 40,
    batch: int = 256,
    rate: float = 1e-3,
    hold: float = 1.0,
    patience: int = 6,
    normalise: bool = True,
    seed: int = 0,
) -> MlpMap:
    """Fit a correction to `base` from pairs source (n, source_dim), target (n, target_dim) by Adam on squared error.

    `score` says how a map retrieves on held-out vectors and chooses the epoch (`training.neighbour_overlap` makes one);
    `hold` weighs the mean square of the correction itself, which keeps the map near its base.
    Raises TrainingError without torch and PairsError when pairs and base do not fit together.
    """
    if len(source) != len(target) or len(source) < _FEWEST:
        raise PairsError(f"mlp: {len(source)} source and {len(target)} target vectors, at least {_FEWEST} pairs needed")
    if (source.shape[1], target.shape[1]) != (base.source_dim, base.target_dim):
        raise PairsError(
            f"mlp: pairs of {source.shape[1]} -> {target.shape[1]} dimensions, its base maps {base.source_dim} -> "
            f"{base.target_dim}"
        )
    start = _start(source, base, hidden, normalise, np.random.default_rng(seed))
    rounds = _train(start, source, target, epochs=epochs, batch=batch, rate=rate, hold=hold, seed=seed)
    return best_of(start, rounds, score, patience=patience)


def _start(source: Float32, base: Map, hidden: int, normalise: bool, rng: np.random.Generator) -> MlpMap:
    """He initialisation scaled to the data's spread, centred on its mean; the outer layer is zero."""
    mean = source.mean(axis=0)
    spread = float(np.sqrt(np.mean((source - mean) ** 2)))
    scale = np.sqrt(2.0 / source.shape[1]) / max(spread, 1e-6)
    inner = rng.normal(scale=scale, size=(source.shape[1], hidden)).astype(np.float32)
    outer, outer_bias = np.zeros((hidden, base.target_dim), np.float32), np.zeros(base.target_dim, np.float32)
    return MlpMap(base, inner, -(mean @ inner).astype(np.float32), outer, outer_bias, normalise)


def _train(
    start: MlpMap, source: Float32, target: Float32, *, epochs: int, batch: int, rate: float, hold: float, seed: int
) -> Iterator[MlpMap]:
    torch = load_torch()
    order = torch.Generator().manual_seed(seed)
    x, y = torch.from_numpy(source), torch.from_numpy(target)
    bases = torch.from_numpy(start.base.apply(source))
    layers = [torch.tensor(getattr(start, name), requires_grad=True) for name in _LAYERS]
    inner, inner_bias, outer, outer_bias = layers
    optimiser = torch.optim.Adam(layers, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=order).split(batch):
            change = torch.relu(x[rows] @ inner + inner_bias) @ outer + outer_bias
            mapped = bases[rows] + change
            if start.normalise:
                mapped = torch.nn.functional.normalize(mapped, dim=1)
            loss = (mapped - y[rows]).square().sum(1).mean() + hold * change.square().sum(1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
        first, first_bias, last, last_bias = (to_numpy(layer) for layer in layers)
        yield MlpMap(start.base, first, first_bias, last, last_bias, start.normalise)
