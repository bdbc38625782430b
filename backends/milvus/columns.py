"""Vectors of columns: FieldData, as rows are inserted and handed back.

The vectors of all rows stand end to end, those of rows without one left out (`valid_data` says which). A column of
half-precision numbers may be sent as float32. Sparse, binary and array-of-vector columns give no slot.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from ..dialect import Float32, VectorSlot
from ..wire import Found, Span, read_floats, read_text, read_uint, scan
from .forms import SIZES, read_form
from .schema import DENSE_TYPES, SHAPES
from .slots import ColumnPlace, GrpcReader

_FIELD_DATA: Final = SHAPES["FieldData"]
_VECTOR_FIELD: Final = SHAPES["VectorField"]
_FLOAT_ARRAY: Final = SHAPES["FloatArray"]
_BYTES: Final = {"float16_vector": "float16", "bfloat16_vector": "bfloat16", "int8_vector": "int8"}
_OTHER: Final = ("binary_vector", "sparse_float_vector", "vector_array")


def add_columns(reader: GrpcReader, columns: Iterable[Span]) -> None:
    """The slots of repeated FieldData."""
    for column in columns:
        found = scan(reader.body, (column,), _FIELD_DATA)
        if "vectors" in found:
            _add_column(reader, found)


def _add_column(reader: GrpcReader, column: Found) -> None:
    body = reader.body
    found = scan(body, column["vectors"], _VECTOR_FIELD)
    dim = read_uint(body, found, "dim")
    if not dim or any(name in found for name in _OTHER):
        return
    read = _read_data(body, found, column)
    if read is None or read[1].size % dim:
        return  # nothing that an adapter could map: the upstream will say what is wrong with it
    form, flat, data = read
    place = ColumnPlace(form, data, found["dim"][-1])
    field = read_text(body, column, "field_name")
    reader.slots.append(VectorSlot(reader.collection, field, reader.role, flat.reshape(-1, dim), None, place))


def _read_data(body: bytes, found: Found, column: Found) -> tuple[str, Float32, tuple[Span, ...]] | None:
    """The form, numbers (n,) and place of a dense column's data; of no numbers where every row is without a vector."""
    if "float_vector" in found:
        data = tuple(scan(body, found["float_vector"], _FLOAT_ARRAY).get("data", ()))
        return "float", read_floats(body, data) if data else _none(), data
    for name, form in _BYTES.items():
        if name in found:
            span = found[name][-1]
            if (span[3] - span[2]) % SIZES[form]:
                return None
            return form, read_form(form, body, span[2], span[3]), (span,)
    told = DENSE_TYPES.get(read_uint(body, column, "type") or 0)
    return None if told is None else (told, _none(), ())


def _none() -> Float32:
    empty = np.empty(0, np.float32)
    empty.flags.writeable = False
    return empty
