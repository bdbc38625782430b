"""What old index and target must agree on, point by point. Pure.

missing   the old index has the point, the target has not
extra     the target has a point that the old index has not
payload   the payloads differ
others    the vectors of other fields differ
vector    the re-encoded field has no vector, or one that is not what was written there
encoding  the vector is not what the new model gives for the text (asked for a sample)
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np

from crossfade.backends.dialect import Float32
from crossfade.backends.index import Point, PointId

from .keys import write_key
from .ledger import agrees

Finding = Literal["missing", "extra", "payload", "others", "vector", "encoding"]
SAME_ENCODING: Final = 0.99  # cosine: the same model in other batches or on other hardware stays above it


def compare_point(
    old: Point | None, new: Point | None, field: str, signature: bytes | None, *, dead: bool
) -> Finding | None:
    """What is wrong with one point, or None. `dead`: it is known that it cannot have a vector in the target."""
    if old is None or new is None:
        return None if old is new else "extra" if old is None else "missing"
    if old.payload != new.payload:
        return "payload"
    if not _same_others(old, new, field):
        return "others"
    vector = new.vectors.get(field)
    if vector is None:
        return "vector" if field in old.vectors and not dead else None
    if field not in old.vectors or signature is None or not agrees(signature, vector):
        return "vector"
    return None


def _same_others(old: Point, new: Point, field: str) -> bool:
    names = old.vectors.keys() - {field}
    if names != new.vectors.keys() - {field} or old.sparse.keys() != new.sparse.keys():
        return False
    dense = all(np.allclose(old.vectors[name], new.vectors[name], rtol=1e-3, atol=1e-6) for name in names)
    return dense and all(_same_sparse(old, new, name) for name in old.sparse)


def _same_sparse(old: Point, new: Point, name: str) -> bool:
    first, second = old.sparse[name], new.sparse[name]
    return dict(zip(first.indices.tolist(), first.values.tolist(), strict=True)) == dict(
        zip(second.indices.tolist(), second.values.tolist(), strict=True)
    )


def is_sampled(point: PointId, share: float, seed: int) -> bool:
    """Whether a point belongs to the sample: the same answer for the same seed, so that a walk can be resumed."""
    return zlib.crc32(f"{seed}|{write_key(point)}".encode()) < share * 2**32


def find_foreign(points: Sequence[PointId], stored: Sequence[Float32], encoded: Sequence[Float32]) -> list[PointId]:
    """Points whose stored vector is not what the model gives for their text."""
    return [
        point for point, kept, made in zip(points, stored, encoded, strict=True) if _cosine(kept, made) < SAME_ENCODING
    ]


def _cosine(first: Float32, second: Float32) -> float:
    if first.shape != second.shape:
        return -1.0
    lengths = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
    return float(first @ second) / lengths if lengths else float(np.array_equal(first, second))


def sum_up(found: Mapping[PointId, Finding]) -> dict[str, int]:
    """How often each kind was found."""
    return {kind: list(found.values()).count(kind) for kind in sorted(set(found.values()))}
