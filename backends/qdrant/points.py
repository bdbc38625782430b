"""Points between Qdrant's client models and the Index's own."""

from __future__ import annotations

from typing import Any

import numpy as np
from qdrant_client import models

from ..dialect import Float32
from ..index import Point, PointId, SparseVector


def read_point(point: PointId, record: models.Record) -> Point:
    """A record with its vectors, dense (dim,) or (n, dim), by field name."""
    stored = record.vector
    named: dict[str, Any] = stored if isinstance(stored, dict) else {} if stored is None else {"": stored}
    dense: dict[str, Float32] = {}
    sparse: dict[str, SparseVector] = {}
    for name, vector in named.items():
        if isinstance(vector, models.SparseVector):
            indices, values = np.array(vector.indices, np.uint32), np.array(vector.values, np.float32)
            sparse[name] = SparseVector(indices, values)
        else:
            dense[name] = np.array(vector, dtype=np.float32)
    return Point(point, dense, record.payload or {}, sparse)


def write_point(point: Point) -> models.PointStruct:
    """A point as the client takes it; a lone vector in the field "" is the default one."""
    named: dict[str, Any] = {name: vector.tolist() for name, vector in point.vectors.items()}
    for name, vector in point.sparse.items():
        named[name] = models.SparseVector(indices=vector.indices.tolist(), values=vector.values.tolist())
    vectors: Any = named[""] if named.keys() == {""} else named
    return models.PointStruct(id=point.id, vector=vectors, payload=dict(point.payload))
