"""A linear map in bytes, for under what corrects it: a quarter of the memory to read, and no product in floats.

Weights are rounded to 7 bits by output and vectors to 8, after a centre is taken from them: what all vectors share
would be most of what is rounded. A linear map alone is applied in floats. Nothing of this is stored: the floats are,
and are rounded before the first request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Float32, Map
from .experts import CodedExperts, encode_experts
from .linear import LinearMap

NOTHING = None, None, None  # codes, scales and offsets of a map that is not there, as the kernel takes them


@dataclass(frozen=True)
class RoundedLinear:
    """(x - centre) W + b' as one expert that is always asked."""

    expert: CodedExperts

    def apply(self, centred: Float32) -> Float32:
        """Map vectors (n, source_dim) less the centre to float32 (n, target_dim)."""
        mapped = np.zeros((len(centred), self.expert.offsets.shape[1]), np.float32)
        self.expert.add(centred, np.zeros((len(centred), 1), np.float32), 1, 1.0, mapped)
        return mapped


def rounded(base: Map, centre: Float32) -> RoundedLinear | None:
    """A linear map that does not normalise, in bytes around centre (source_dim,); None for another map."""
    if not isinstance(base, LinearMap) or base.normalise:
        return None
    made = RoundedLinear(encode_experts(base.weight[None], base.apply(centre[None]), nibbles=False))
    made.expert.prepare()
    return made


def given_arrays(made: RoundedLinear | None) -> tuple[NDArray[Any] | None, ...]:
    """What the kernel takes of a map in bytes, or of none."""
    return NOTHING if made is None else made.expert.packed_arrays()
