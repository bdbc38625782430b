"""A user's own encoder, as `python: module:function` names it: texts in, vectors out, always the same."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

DIM = 24


def encode(texts: list[str], role: str) -> NDArray[np.float32]:
    """Vectors (n, 24) that follow from text and role alone."""
    if "fail" in texts:
        raise RuntimeError("the model is out of memory")
    return np.stack([encode_one(text, role) for text in texts])


def encode_one(text: str, role: str) -> NDArray[np.float32]:
    """One vector (24,)."""
    numbers = np.random.default_rng(zlib.crc32(f"{role}|{text}".encode()))
    return numbers.normal(size=DIM).astype(np.float32)


def encode_old(texts: list[str], role: str) -> NDArray[np.float32]:
    """Vectors (n, 16) of another model."""
    return np.stack([encode_one(text, f"old {role}")[:16] for text in texts])
