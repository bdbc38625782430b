"""Rows of a slot: put together when a message is read, held against the slot when they are written back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .dialect import Float32, TextSlot, VectorSlot


def frozen_stack(rows: Sequence[Float32]) -> Float32:
    """Rows (dim,) as one read-only array (n, dim)."""
    stacked = np.stack(rows)
    stacked.flags.writeable = False
    return stacked


def check_rows(slot: VectorSlot | TextSlot, rows: Float32) -> None:
    """Raise ValueError unless `rows` is (n, dim) with as many rows as the slot has."""
    n = slot.rows.shape[0] if isinstance(slot, VectorSlot) else 1
    if rows.ndim != 2 or rows.shape[0] != n:
        raise ValueError(
            f"collection {slot.collection!r}, field {slot.field!r}: the slot holds {n} rows, "
            f"the edit has the shape {rows.shape}; give {n} rows"
        )
