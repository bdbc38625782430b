"""Small adapters for tests of the engine: what they map to is of no use, but exact, and nothing like what goes in."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from crossfade.adapters.base import Adapter, Card, Float32, PairsCard
from crossfade.adapters.calibrate import fit_calibration
from crossfade.adapters.fingerprint import fit_fingerprint
from crossfade.adapters.linear import fit_linear
from crossfade.adapters.store import save_adapter

OLD, NEW = 16, 24  # dimensions


def toy_vectors(seed: int, n: int, dim: int) -> Float32:
    """Unit rows (n, dim) around a direction of their own, so that a fingerprint knows them."""
    numbers = np.random.default_rng(seed)
    rows = numbers.normal(size=(n, dim)) + 3 * np.random.default_rng(seed % 1000).normal(size=dim)
    unit: Float32 = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def toy_adapter(source: str = "new", target: str = "old", dims: tuple[int, int] = (NEW, OLD), seed: int = 1) -> Adapter:
    """An adapter whose three maps differ, with a calibration and fingerprints of both models."""
    new, old = toy_vectors(seed, 400, dims[0]), toy_vectors(seed + 1, 400, dims[1])
    scores = np.random.default_rng(seed).uniform(-1, 1, 500)
    return Adapter(
        Card(source, target, *dims, "ridge", PairsCard(400, "toy")),
        query=fit_linear(new, old, ridge=0.1),
        document=fit_linear(new, old, ridge=1.0, normalise=False),
        reverse=fit_linear(old, new, ridge=0.1),
        calibration=fit_calibration(scores, scores**3 / 2 + scores / 3),
        fingerprints={source: fit_fingerprint(new), target: fit_fingerprint(old)},
    )


def save_toy(path: Path, source: str = "new", target: str = "old", dims: tuple[int, int] = (NEW, OLD)) -> Adapter:
    """Write a toy adapter and return it."""
    adapter = toy_adapter(source, target, dims)
    save_adapter(adapter, path)
    return adapter
