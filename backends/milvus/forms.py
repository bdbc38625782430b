"""Numbers as Milvus stores them: float32, float16, bfloat16 and int8, little-endian, read as float32 and written back.

An adapter's output goes back in the form in which the vector came. int8 is rounded to the nearest whole number, and
what lies beyond -128..127 stays at that end, as quantisation does.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from ..dialect import Float32

SIZES: Final = {"float": 4, "float16": 2, "bfloat16": 2, "int8": 1}
_DTYPES: Final = {"float": "<f4", "float16": "<f2", "bfloat16": "<u2", "int8": "i1"}


def read_form(form: str, data: bytes, start: int = 0, end: int | None = None) -> Float32:
    """The numbers in data[start:end], (n,), read-only: a view where they are float32 already."""
    count = ((len(data) if end is None else end) - start) // SIZES[form]
    raw = np.frombuffer(data, _DTYPES[form], count, start)
    if form == "float":
        return raw
    numbers = (raw.astype("<u4") << 16).view("<f4") if form == "bfloat16" else raw.astype(np.float32)
    numbers.flags.writeable = False
    return numbers


def write_form(form: str, rows: Float32) -> bytes:
    """Numbers of any shape as they stand on the wire. Raises ValueError for those a float16 cannot hold."""
    numbers = np.ascontiguousarray(rows, dtype="<f4")
    if form == "float16":
        with np.errstate(over="ignore"):
            halves = numbers.astype("<f2")
        if np.isinf(halves).any() and np.isfinite(numbers).all():
            raise ValueError(f"a number of {np.abs(numbers).max():g} does not fit a float16, which ends at 65504")
        return halves.tobytes()
    if form == "bfloat16":
        return _round_bfloat16(numbers).tobytes()
    if form == "int8":
        numbers = np.clip(np.rint(numbers), -128, 127).astype(np.int8)
    data: bytes = numbers.tobytes()
    return data


def _round_bfloat16(numbers: Float32) -> NDArray[np.uint16]:
    """The upper halves of float32, to the nearest and from the middle to even; NaN stays NaN."""
    bits = numbers.view("<u4")
    rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    quiet = bits >> np.uint32(16) | np.uint32(0x40)
    return np.where(np.isnan(numbers), quiet, rounded).astype("<u2")
