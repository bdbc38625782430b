"""Real vectors for tests: the folder that CROSSFADE_DATA names, or ../shared/data beside the repository."""

import os
from pathlib import Path

import numpy as np
import pytest

from crossfade.adapters.base import Float32

ROOT = Path(os.environ.get("CROSSFADE_DATA", Path(__file__).parents[3] / "shared" / "data"))


def pack_vectors(collection: str, part: str, model: str) -> Float32:
    """Unit rows (n, dim) of "docs" or "queries"; skips the calling test where the pack is not there."""
    path = ROOT / collection / f"{part}.{model}.f16.npy"
    if not path.exists():
        pytest.skip(f"no evaluation data at {path}; set CROSSFADE_DATA to its folder")
    vectors: Float32 = np.load(path).astype(np.float32)
    return vectors
