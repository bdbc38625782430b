"""Points between Milvus's rows and the Index's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from pymilvus import DataType

from ..dialect import Float32
from ..index import Point, SparseVector
from .forms import read_form, write_form

_FORMS: Final = {
    DataType.FLOAT_VECTOR: "float",
    DataType.FLOAT16_VECTOR: "float16",
    DataType.BFLOAT16_VECTOR: "bfloat16",
    DataType.INT8_VECTOR: "int8",
}
_DYNAMIC: Final = "$meta"  # the field that holds what no other field does


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a collection."""

    key: str
    text_ids: bool
    dims: Mapping[str, int]  # of the dense vectors
    forms: Mapping[str, str]
    sparse: Sequence[str]
    scalars: Sequence[str]
    dynamic: Sequence[str]  # what to ask for to be given the dynamic fields


def read_fields(described: Mapping[str, Any]) -> Fields:
    """The fields of a collection as pymilvus describes it."""
    fields = described["fields"]
    key = next(one for one in fields if one.get("is_primary"))
    forms = {one["name"]: _FORMS[one["type"]] for one in fields if one["type"] in _FORMS}
    sparse = [one["name"] for one in fields if one["type"] == DataType.SPARSE_FLOAT_VECTOR]
    vectors = {*forms, *sparse, *(one["name"] for one in fields if one["type"] == DataType.BINARY_VECTOR)}
    return Fields(
        key=key["name"],
        text_ids=key["type"] == DataType.VARCHAR,
        dims={one["name"]: int(one["params"]["dim"]) for one in fields if one["name"] in forms},
        forms=forms,
        sparse=sparse,
        scalars=[one["name"] for one in fields if one["name"] not in {*vectors, key["name"]}],
        dynamic=[_DYNAMIC] if described.get("enable_dynamic_field") else [],
    )


def read_entity(row: Mapping[str, Any], fields: Fields, vectors: Sequence[str]) -> Point:
    """A row with its dense vectors (dim,), sparse vectors and the rest as payload."""
    dense = {
        name: _read_dense(row[name], fields.forms[name])
        for name in vectors
        if name in fields.dims and row.get(name) is not None
    }
    sparse = {name: _read_sparse(row[name]) for name in vectors if name in fields.sparse and row.get(name)}
    left = {*fields.dims, *fields.sparse, fields.key, _DYNAMIC}
    payload = {key: value for key, value in row.items() if key not in left}
    return Point(row[fields.key], dense, payload, sparse)


def _read_dense(value: Any, form: str) -> Float32:
    if form == "float":
        return np.array(value, dtype=np.float32)
    data = value if isinstance(value, bytes) else value[0] if isinstance(value, list) else value
    if isinstance(data, bytes):
        return read_form(form, data)
    return np.asarray(value, dtype=np.float32)


def _read_sparse(value: Mapping[int, float]) -> SparseVector:
    indices = np.array(sorted(value), np.uint32)
    return SparseVector(indices, np.array([value[int(index)] for index in indices], np.float32))


def write_entity(point: Point, fields: Fields) -> dict[str, Any]:
    """A row as pymilvus takes it."""
    row: dict[str, Any] = {**point.payload, fields.key: point.id}
    for name, vector in point.vectors.items():
        form = fields.forms.get(name, "float")
        row[name] = vector.tolist() if form == "float" else write_form(form, vector)
    for name, sparse in point.sparse.items():
        row[name] = dict(zip(sparse.indices.tolist(), sparse.values.tolist(), strict=True))
    return row
