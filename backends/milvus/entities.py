"""Points between Milvus's rows and the Index's own.

A point's payload is every stored field that is neither the key nor a dense or sparse vector: scalars, dynamic fields,
and binary vectors as bytes. What functions compute (BM25's sparse vectors, say) is Milvus's to write.
"""

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
_NUMPY_FORMS: Final = {"float16": np.float16, "int8": np.int8}


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of a collection."""

    key: str
    text_ids: bool
    auto_ids: bool  # Milvus gives out the keys
    dims: Mapping[str, int]  # of the dense vectors
    forms: Mapping[str, str]
    sparse: Sequence[str]
    binary: Sequence[str]
    scalars: Sequence[str]
    dynamic: Sequence[str]  # what to ask for to be given the dynamic fields
    computed: frozenset[str]  # what functions write

    @property
    def payload(self) -> list[str]:
        """What to ask for to be given everything but the vectors that are read as such."""
        return [*self.scalars, *self.binary, *self.dynamic]


def read_fields(described: Mapping[str, Any]) -> Fields:
    """The fields of a collection as pymilvus describes it."""
    fields = described["fields"]
    key = next(one for one in fields if one.get("is_primary"))
    computed = {name for one in described.get("functions", ()) for name in one["output_field_names"]}
    forms = {one["name"]: _FORMS[one["type"]] for one in fields if one["type"] in _FORMS}
    sparse = _named(fields, DataType.SPARSE_FLOAT_VECTOR)
    binary = _named(fields, DataType.BINARY_VECTOR)
    vectors = {*forms, *sparse, *binary}
    structs = [one["name"] for one in described.get("struct_array_fields", ())]
    return Fields(
        key=key["name"],
        text_ids=key["type"] == DataType.VARCHAR,
        auto_ids=bool(key.get("auto_id")),
        dims={one["name"]: int(one["params"]["dim"]) for one in fields if one["name"] in forms},
        forms=forms,
        sparse=[name for name in sparse if name not in computed],
        binary=[name for name in binary if name not in computed],
        scalars=[*(one["name"] for one in fields if one["name"] not in {*vectors, *computed, key["name"]}), *structs],
        dynamic=[_DYNAMIC] if described.get("enable_dynamic_field") else [],
        computed=frozenset(computed),
    )


def _named(fields: Sequence[Mapping[str, Any]], kind: DataType) -> list[str]:
    return [one["name"] for one in fields if one["type"] == kind]


def read_entity(row: Mapping[str, Any], fields: Fields, vectors: Sequence[str]) -> Point:
    """A row with its dense vectors (dim,), sparse vectors and the rest as payload."""
    dense = {
        name: _read_dense(row[name], fields.forms[name])
        for name in vectors
        if name in fields.dims and row.get(name) is not None
    }
    sparse = {name: _read_sparse(row[name]) for name in vectors if name in fields.sparse and row.get(name)}
    left = {*fields.dims, *fields.sparse, fields.key, _DYNAMIC}
    payload = {key: _read_bytes(value) if key in fields.binary else value for key, value in row.items()}
    return Point(row[fields.key], dense, {key: value for key, value in payload.items() if key not in left}, sparse)


def _read_bytes(value: Any) -> Any:
    """Vectors of bytes come as such, or alone in a list."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _read_dense(value: Any, form: str) -> Float32:
    data = _read_bytes(value)
    if form != "float" and isinstance(data, bytes):
        return read_form(form, data)
    return np.array(value, dtype=np.float32)


def _read_sparse(value: Mapping[int, float]) -> SparseVector:
    indices = np.array(sorted(value), np.uint32)
    return SparseVector(indices, np.array([value[int(index)] for index in indices], np.float32))


def write_entity(point: Point, fields: Fields) -> dict[str, Any]:
    """A row as pymilvus takes it."""
    row: dict[str, Any] = {**point.payload, fields.key: point.id}
    for name, vector in point.vectors.items():
        if name not in fields.computed:
            form = fields.forms.get(name, "float")
            row[name] = vector.tolist() if form == "float" else write_form(form, vector)
    for name, sparse in point.sparse.items():
        row[name] = dict(zip(sparse.indices.tolist(), sparse.values.tolist(), strict=True))
    return row


def write_queries(rows: Float32, form: str) -> list[Any]:
    """Query vectors (n, dim) as pymilvus takes them for a field of this form."""
    if form == "float":
        return list(rows.tolist())
    kind = _NUMPY_FORMS.get(form)
    written = [write_form(form, row) for row in rows]
    return written if kind is None else [np.frombuffer(one, kind) for one in written]
