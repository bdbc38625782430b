"""A sample of points that are in both indexes: what a score of the old one is on the new one's scale. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from crossfade.adapters.merge import FEWEST, TailMatch, TailMatcher, fit_matcher
from crossfade.backends.index import Distance

Float32 = NDArray[np.float32]
_UNIT: Final = 1e-3  # how far from 1 the squared length of a vector of unit length may be


@dataclass(frozen=True)
class Sample:
    """Points that are in both indexes, and how the database compares vectors."""

    matcher: TailMatcher
    distance: Distance

    @property
    def size(self) -> int:
        """Bytes of one query's scores."""
        return len(self.matcher.new) * 2 * self.matcher.new.itemsize

    def match(self, new: Float32, old: Float32) -> TailMatch:
        """The lines for queries as they ask the new index (n, new_dim) and the old one (n, old_dim)."""
        if self.distance == "cosine":
            new, old = _unit(new), _unit(old)
        return self.matcher.match(new, old)


def build_sample(new: Float32, old: Float32, distance: Distance) -> Sample | None:
    """A sample of new (n, new_dim) and old (n, old_dim) vectors; None where they do not help.

    That is below 20 points, and for distances that inner products do not order: Manhattan, and Euclid unless all
    vectors are of unit length, where d^2 = 2 - 2s.
    """
    if len(new) < FEWEST or distance == "manhattan":
        return None
    if distance == "cosine":
        new, old = _unit(new), _unit(old)
    elif distance == "euclid" and not (_is_unit(new) and _is_unit(old)):
        return None
    return Sample(fit_matcher(new, old), distance)


def _unit(rows: Float32) -> Float32:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths == 0, 1, lengths), np.float32)


def _is_unit(rows: Float32) -> bool:
    return bool(np.all(np.abs(np.einsum("ij,ij->i", rows, rows) - 1) < _UNIT))
