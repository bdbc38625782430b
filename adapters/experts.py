"""Local experts in a byte a number: a quarter of the memory to read, which is what applying them costs.

Experts cannot be told by few directions (half of their nDCG@10 gain is lost at rank 64 of 384, whether each has its own
directions or all share them), but they can be rounded: the weights of each output to 7 bits as they are kept, and to 4
as they are applied, a vector to 8. Four experts are asked at a time, and what they lose evens out. The compiled product
(kernel/) and numpy's, which takes its place where there was no C compiler, round alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Arrays, Float32
from .native import compiled
from .search import best

Int8 = NDArray[np.int8]
WEIGHT, VECTOR = 63, 127  # the largest code of a weight and of a vector's number
NIBBLE = 7  # the largest code of a weight in 4 bits
CUT = 2.7  # standard deviations that a weight in 4 bits reaches: nearly the best for normal ones (Max 1960)
ZERO, LANES, GROUP = 64, 16, 4  # as in kernel/search.h


@dataclass(frozen=True)
class CodedExperts:
    """Corrections x delta + offset of each expert: codes (experts, source_dim, target_dim) in units of scales
    (experts, target_dim), offsets (experts, target_dim). With `nibbles` they are applied in 4 bits."""

    codes: Int8
    scales: Float32
    offsets: Float32
    nibbles: bool = True

    def add(self, centred: Float32, scores: Float32, active: int, temperature: float, out: Float32) -> None:
        """Add to out (n, target_dim) what the `active` best experts make of centred (n, source_dim).

        Their gates are softmax(scores / |centred| / temperature), scores (n, experts).
        """
        experts, source, target = self.codes.shape
        active = min(active, experts)
        if compiled is None:
            self._add_numpy(centred, scores, active, temperature, out)
            return
        compiled.correct(
            *self.packed_arrays(), np.ascontiguousarray(centred, np.float32), scores, out,
            experts, source, target, len(centred), active, self.nibbles, temperature,
        )  # fmt: skip

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"codes": self.codes, "scales": self.scales, "offsets": self.offsets}

    @classmethod
    def restore(cls, arrays: Arrays) -> CodedExperts:
        experts = cls(arrays["codes"], arrays["scales"], arrays["offsets"])
        experts.prepare()
        return experts

    def prepare(self) -> None:
        """Lay the codes out now, and not in the first request."""
        _ = self._packed if compiled is not None else self._deltas

    def packed_arrays(self) -> tuple[NDArray[np.uint8], Float32, Float32]:
        """What the kernel takes: codes, scales and offsets."""
        return *self._packed, self.offsets

    @cached_property
    def _applied(self) -> tuple[Int8, Float32]:
        """Codes as they are applied, and their scales: those in 4 bits are made of those in 7."""
        if not self.nibbles:
            return self.codes, self.scales
        spread = np.sqrt(np.square(self.codes.astype(np.float32)).mean(axis=1))
        step = np.maximum(spread * np.float32(CUT / NIBBLE), np.float32(WEIGHT / 127))
        codes = np.rint(self.codes / step[:, None, :])
        return np.clip(codes, -NIBBLE, NIBBLE).astype(np.int8), (self.scales * step).astype(np.float32)

    @cached_property
    def _packed(self) -> tuple[NDArray[np.uint8], Float32]:
        """Codes as [expert][block][group][LANES][GROUP] for the kernel, and scales of whole blocks."""
        experts, source, target = self.codes.shape
        codes, own = self._applied
        zero = NIBBLE + 1 if self.nibbles else ZERO
        narrow, blocks = -(-source // (2 * GROUP)) * 2 * GROUP, -(-target // LANES)
        laid = np.full((experts, narrow, blocks * LANES), zero, np.uint8)
        laid[:, :source, :target] = codes + np.int8(zero)
        split = laid.reshape(experts, narrow // GROUP, GROUP, blocks, LANES).transpose(0, 3, 1, 4, 2)
        if self.nibbles:
            split = split[:, :, ::2] | split[:, :, 1::2] << 4
        scales = np.zeros((experts, blocks * LANES), np.float32)
        scales[:, :target] = own
        return np.ascontiguousarray(split), scales

    @cached_property
    def _deltas(self) -> Float32:
        codes, scales = self._applied
        deltas: Float32 = codes.astype(np.float32) * scales[:, None, :]
        return deltas

    def _add_numpy(self, centred: Float32, scores: Float32, active: int, temperature: float, out: Float32) -> None:
        most = np.maximum(np.abs(centred).max(axis=1, keepdims=True), np.float32(1e-30))
        rounded = np.rint(centred * (np.float32(VECTOR) / most)) * (most / np.float32(VECTOR))
        lengths = np.sqrt(np.einsum("nd,nd->n", centred, centred))[:, None]
        chosen, reached = best(scores / np.maximum(lengths, np.float32(1e-12)), active)
        gates = np.exp((reached - reached[:, :1]) / np.float32(temperature))
        gates /= gates.sum(axis=1, keepdims=True)
        for expert in np.unique(chosen):
            rows, places = np.nonzero(chosen == expert)
            found = rounded[rows] @ self._deltas[expert] + self.offsets[expert]
            out[rows] += gates[rows, places, None] * found


def encode_experts(deltas: Float32, offsets: Float32, *, nibbles: bool = True) -> CodedExperts:
    """Round deltas (experts, source_dim, target_dim); offsets (experts, target_dim) stay as they are."""
    scales = np.maximum(np.abs(deltas).max(axis=1), np.float32(1e-30)) / np.float32(WEIGHT)
    return CodedExperts(
        np.rint(deltas / scales[:, None, :]).astype(np.int8), scales.astype(np.float32), offsets, nibbles
    )
