"""The new model of the chaos runs: vectors that follow from the text, and calls that take some time."""

from __future__ import annotations

import asyncio

import numpy as np
from numpy.typing import NDArray

from tests.proxy.encoding_function import encode as encode_at_once

_CALL_SECONDS = 0.02


async def encode(texts: list[str], role: str) -> NDArray[np.float32]:
    """Vectors (n, 24)."""
    await asyncio.sleep(_CALL_SECONDS)
    return encode_at_once(texts, role)
