"""What lies in the rows that were found: the residuals of pairs, and how they are added to what a map gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Arrays, Float32
from .native import compiled
from .vectors import aligned

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]
MOST = 127


@dataclass(frozen=True)
class CodedValues:
    """Rows in a byte a number: codes (n, dim) in units (n,), which is a quarter of the memory to read."""

    codes: Int8
    units: Float32

    def __len__(self) -> int:
        return len(self.codes)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {"codes": self.codes, "units": self.units}

    @classmethod
    def restore(cls, arrays: Arrays) -> CodedValues:
        return cls(aligned(arrays["codes"]), arrays["units"])

    def joined(self, values: Float32) -> CodedValues:
        """These rows and further ones (m, dim)."""
        more = encode_values(values)
        return CodedValues(aligned(np.concatenate([self.codes, more.codes])), np.concatenate([self.units, more.units]))

    def take(self, rows: NDArray[Any]) -> Float32:
        """Rows as floats, of the shape of `rows` and (dim,)."""
        taken: Float32 = self.codes[rows].astype(np.float32) * self.units[rows][..., None]
        return taken


def encode_values(values: Float32) -> CodedValues:
    """Round rows (n, dim)."""
    units = np.maximum(np.abs(values).max(axis=1), np.float32(1e-30)) / np.float32(MOST)
    return CodedValues(aligned(np.rint(values / units[:, None]).astype(np.int8)), units.astype(np.float32))


def add_values(
    values: Float32 | CodedValues, rows: Int32, scores: Float32, out: Float32, *, temperature: float, weight: float
) -> None:
    """Add weight * softmax(scores / temperature) values[rows] to out (n, dim).

    rows and scores (n, top), values (m, dim); a row of -1 counts for nothing.
    """
    if compiled is not None and isinstance(values, CodedValues):
        compiled.add(
            rows, scores, values.codes, values.units, out, len(rows), rows.shape[1], out.shape[1], temperature, weight
        )  # fmt: skip
        return
    gates = np.where(rows < 0, np.float32(0), np.exp((scores - scores[:, :1]) / np.float32(temperature)))
    gates *= np.float32(weight) / np.maximum(gates.sum(axis=1, keepdims=True), np.float32(1e-30))
    taken = values.take(rows) if isinstance(values, CodedValues) else values[rows]
    out += np.matmul(gates[:, None, :], taken)[:, 0]
