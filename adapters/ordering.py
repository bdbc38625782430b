"""Turning a mapped query so that the pairs nearest to it come in the order that the new model gives them.

Of the pairs nearest to a query x the new model's own scores v_i are known, and so is what the mapped query u0 (of unit
length) scores them in the old space. u is the ridge regression of wanted scores, centred on u0:

    min |u - u0|^2 ridge * t + sum_i (u . y_i - s_i)^2,   s_i = mean(u0 . y) + spread * (v_i - mean(v))

over those neighbours, with y_i their old vectors less the documents' mean and t the mean of |y_i|^2. The means leave
the neighbours together where they are among all documents; only their order among each other changes, and with it that
of documents like them which nobody has encoded anew. `spread` puts scores of the new space on the scale of the old.
In the dual it is u = u0 + Y' (Y Y' + ridge * t)^-1 (s - Y u0): a system as small as the neighbours are few.

A residual (residual.py) draws queries towards paired documents, which helps where many are paired and hurts where few
are. The order hurts nowhere on average: with a tenth, a fifth, two fifths and four fifths of a collection paired, both
together were worth .007, .010, .014 and .036 nDCG@10, the residual alone 0, 0, .007 and .033 (means of sixteen
upgrades: eight collections, both ways between two models, two draws of pairs).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from .base import JSON, Arrays, Float32, Map
from .native import compiled
from .values import CodedValues, encode_values
from .vectors import unit_rows

Int32 = NDArray[np.int32]
RIDGE = 1.0  # .5 and 2 were within .002 nDCG@10 of it
ASKED = 300  # documents that stand for queries when the spread is measured
TAIL, FEWEST = 0.02, 20  # of the pairs, whose scores' spread counts
MOST_SPREAD = 4.0  # .2 to 1 between real models; more is a space whose documents are all alike


@dataclass(frozen=True)
class Ordering:
    """What turning needs: targets (n, target_dim), the pairs' old vectors less `mean` (target_dim,), in bytes or not;
    spread, how far old scores lie apart for new scores that are 1 apart; ridge, how much u0 counts."""

    targets: Float32 | CodedValues
    mean: Float32
    spread: float
    ridge: float = RIDGE

    def turn(self, rows: Int32, scores: Float32, out: Float32) -> None:
        """Turn mapped queries out (n, target_dim) by the pairs found: rows and cosines (n, top), -1 for none."""
        if compiled is not None and isinstance(self.targets, CodedValues):
            compiled.order(
                *(rows, scores, self.targets.codes, self.targets.units, out),
                *(len(rows), rows.shape[1], out.shape[1], self.spread, self.ridge),
            )
            return
        found = (rows >= 0).astype(np.float32)
        taken = self.targets.take(rows) if isinstance(self.targets, CodedValues) else self.targets[rows]
        taken = taken * found[:, :, None]
        lengths = np.sqrt(np.einsum("ij,ij->i", out, out))
        reached = np.matmul(taken, out[:, :, None])[:, :, 0] / np.maximum(lengths, np.float32(1e-30))[:, None]
        wanted = np.float32(self.spread) * _less_mean(scores, found) - _less_mean(reached, found)
        products = np.matmul(taken, taken.transpose(0, 2, 1)).astype(np.float64)
        sizes = np.einsum("nii->n", products) / np.maximum(found.sum(axis=1), 1)
        places = np.arange(rows.shape[1])
        products[:, places, places] += np.maximum(self.ridge * sizes, 1e-30)[:, None]
        shares = np.linalg.solve(products, wanted[:, :, None].astype(np.float64))
        out += lengths[:, None] * np.matmul(shares.transpose(0, 2, 1), taken)[:, 0].astype(np.float32)

    def scaled(self, factor: float) -> Ordering:
        """The same with a spread that is so many times as large."""
        return replace(self, spread=self.spread * factor)

    def encoded(self, order: NDArray[Any]) -> Ordering:
        """The same in bytes, its rows in another order (n,)."""
        assert not isinstance(self.targets, CodedValues)
        return replace(self, targets=encode_values(self.targets[order]))

    def grown(self, target: Float32) -> Ordering:
        """The same with the old vectors (n, target_dim) of further pairs."""
        rows = target - self.mean
        if isinstance(self.targets, CodedValues):
            return replace(self, targets=self.targets.joined(rows))
        return replace(self, targets=np.concatenate([self.targets, rows]))

    def arrays(self) -> dict[str, NDArray[Any]]:
        kept = self.targets.arrays() if isinstance(self.targets, CodedValues) else {"targets": self.targets}
        return kept | {"mean": self.mean}

    def settings(self) -> dict[str, JSON]:
        return {"spread": self.spread, "ridge": self.ridge}

    @classmethod
    def restore(cls, arrays: Arrays, settings: Mapping[str, JSON]) -> Self:
        coded = "targets" not in arrays
        targets = CodedValues.restore(arrays) if coded else arrays["targets"]
        spread, ridge = (float(cast("float", settings[name])) for name in ("spread", "ridge"))
        return cls(targets, arrays["mean"], spread, ridge)


def fit_ordering(base: Map, keys: Float32, source: Float32, target: Float32, *, seed: int = 0) -> Ordering:
    """Keep the old vectors of pairs source (n, source_dim), target (n, target_dim) and measure the spread.

    base is the documents' map, keys (n, source_dim) the sources as neighbours are searched. The spread is the median,
    over some of the documents as queries, of how far the best scores lie apart in either space.
    """
    mean = target.mean(axis=0, dtype=np.float64).astype(np.float32)
    targets = target - mean
    if len(keys) < 3:
        return Ordering(targets, mean, 0.0)
    asked = np.random.default_rng(seed).permutation(len(keys))[:ASKED]
    tail = min(len(keys) - 1, max(FEWEST, round(TAIL * len(keys))))
    new = _best(keys[asked] @ keys.T, asked, tail)
    old = _best(unit_rows(base.apply(source[asked])) @ targets.T, asked, tail)
    apart = np.maximum(new.std(axis=1), np.float32(1e-6))
    return Ordering(targets, mean, min(MOST_SPREAD, float(np.median(old.std(axis=1) / apart))))


def _best(scores: Float32, own: NDArray[Any], tail: int) -> Float32:
    """The `tail` best scores (n, tail) of each row, its own document left out."""
    scores[np.arange(len(own)), own] = -np.inf
    found: Float32 = np.partition(scores, scores.shape[1] - tail, axis=1)[:, -tail:]
    return found


def _less_mean(scores: Float32, found: Float32) -> Float32:
    """Scores (n, top) less the mean of those found, 0 for the others."""
    means = (scores * found).sum(axis=1, keepdims=True) / np.maximum(found.sum(axis=1, keepdims=True), 1)
    left: Float32 = (scores - means) * found
    return left
