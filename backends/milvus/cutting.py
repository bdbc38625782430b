"""Columns cut by row, and rows put together into columns again: FieldData, so that hits of two answers become one.

A null row either has a datum all the same or takes no room in the data; which of the two is told by how many there are,
and a row on its own keeps it. Sparse vectors are as long as the longest of their column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from ..dialect import MalformedError
from ..wire import (
    CLEARED,
    Found,
    Span,
    compile_shapes,
    encode_field,
    encode_varint,
    path_of,
    read_ints,
    read_uint,
    rewrite,
    scan,
)

_KINDS: Final = {
    **dict.fromkeys(("bool_data", "int_data", "long_data", "timestamptz_data", "date_data", "time_data"), "uints"),
    "float_data": "floats",
    "double_data": "doubles",
}  # of the values of a member of ScalarField; else texts, bytes or messages
_VECTORS: Final = {"float_vector": 2, "sparse_float_vector": 6, "vector_array": 8}  # that are messages
_BITS: Final = {"float_vector": 32, "binary_vector": 1, "float16_vector": 16, "bfloat16_vector": 16, "int8_vector": 8}
_BYTES: Final = {"binary_vector": 3, "float16_vector": 4, "bfloat16_vector": 5, "int8_vector": 7}
_SIZES: Final = {"floats": 4, "doubles": 8}

TABLE: Final = {
    "FieldData": (
        "scalars=3:ScalarField|field vectors=4:VectorField|field valid_data=7:uints "
        "struct_arrays=8:StructArrayField|field"
    ),
    "ScalarField": (
        "bool_data=1:BoolArray|data int_data=2:IntArray|data long_data=3:LongArray|data float_data=4:FloatArray|data "
        "double_data=5:DoubleArray|data string_data=6:StringArray|data bytes_data=7:BytesArray|data "
        "array_data=8:ArrayArray|data json_data=9:JSONArray|data geometry_data=10:GeometryArray|data "
        "timestamptz_data=11:TimestamptzArray|data geometry_wkt_data=12:GeometryWktArray|data "
        "mol_data=13:MolArray|data mol_smiles_data=14:MolSmilesArray|data date_data=15:DateArray|data "
        "time_data=16:TimeArray|data"
    ),
    "VectorField": (
        "dim=1:uint float_vector=2:FloatArray|data binary_vector=3:bytes|data float16_vector=4:bytes|data "
        "bfloat16_vector=5:bytes|data sparse_float_vector=6:SparseFloatArray|data int8_vector=7:bytes|data "
        "vector_array=8:VectorArray|data"
    ),
    "StructArrayField": "fields=1:FieldData",
    "SparseFloatArray": "contents=1:bytes dim=2:uint",
    "VectorArray": "dim=1:uint data=2:VectorField element_type=3:enum",
    "FloatArray": "data=1:floats",
    "ArrayArray": "data=1:ScalarField element_type=2:enum",
}
_SHAPES: Final = compile_shapes(TABLE)
_ARRAYS: Final = compile_shapes({kind: f"data=1:{kind}" for kind in ("uints", "floats", "doubles", "string")})
_SCALARS: Final = {name: tag >> 3 for tag, (name, _) in _SHAPES["ScalarField"].items()}  # numbers


class Column(NamedTuple):
    """Some rows of a column.

    `head` has what is the same for each row (type, name, id), `member` the numbers of the fields that hold the data,
    outermost first, and `beside` what stands beside it there, by number. `valid` is empty where nothing is said of
    null rows, and `fields` are the columns inside a column of structs.
    """

    head: bytes
    member: tuple[int, ...]
    kind: str
    cells: Sequence[bytes]
    valid: Sequence[bool]
    dim: int = 0
    beside: Mapping[int, int] = {}  # a tuple's default is never changed
    fields: Sequence[Column] = ()


def read_column(body: bytes, span: Span) -> Column:
    """The column of a FieldData. Raises MalformedError, also for a kind of data that is not known."""
    found = scan(body, (span,), _SHAPES["FieldData"])
    known = [one for some in found.values() for one in some]
    start, end = span[2], span[3]
    head = rewrite(body[start:end], [(one[0] - start, one[3] - start, b"", None) for one in known])
    found.pop(CLEARED, None)
    valid = [bool(one) for one in read_ints(body, found.get("valid_data", ()))]
    if "scalars" in found:
        return _read_scalars(body, found["scalars"], head, valid)
    if "vectors" in found:
        return _read_vectors(body, found["vectors"], head, valid)
    if "struct_arrays" in found:
        inner = scan(body, found["struct_arrays"], _SHAPES["StructArrayField"]).get("fields", ())
        return Column(head, (8,), "", (), valid, fields=[read_column(body, one) for one in inner])
    return Column(head, (), "", (), valid)


def _read_scalars(body: bytes, spans: Sequence[Span], head: bytes, valid: list[bool]) -> Column:
    for name, parts in _known(spans, scan(body, spans, _SHAPES["ScalarField"])).items():
        number, kind = _SCALARS[name], _KINDS.get(name, "string")
        if name == "array_data":
            array = scan(body, parts, _SHAPES["ArrayArray"])
            beside = _numbers(body, array, {"element_type": 2})
        else:
            array, beside = scan(body, parts, _ARRAYS[kind]), {}
        return Column(head, (3, number), kind, list(_cells(body, kind, array.get("data", ()))), valid, beside=beside)
    return Column(head, (3,), "", (), valid)


def _read_vectors(body: bytes, spans: Sequence[Span], head: bytes, valid: list[bool]) -> Column:
    found = scan(body, spans, _SHAPES["VectorField"])
    members, dim = _known(spans, found), read_uint(body, found, "dim") or 0
    for name, parts in members.items():
        if name == "sparse_float_vector":
            array = scan(body, parts, _SHAPES["SparseFloatArray"])
            cells = list(_cells(body, "string", array.get("contents", ())))
            return Column(head, (4, 6), "sparse", cells, valid, dim, _numbers(body, array, {"dim": 2}))
        if name == "vector_array":
            array = scan(body, parts, _SHAPES["VectorArray"])
            beside = _numbers(body, array, {"dim": 1, "element_type": 3})
            cells = list(_cells(body, "string", array.get("data", ())))
            return Column(head, (4, 8), "vectors", cells, valid, dim, beside)
        floats = name == "float_vector"
        parts = scan(body, parts, _SHAPES["FloatArray"]).get("data", []) if floats else parts[-1:]
        number = _VECTORS[name] if floats else _BYTES[name]
        data = b"".join([body[part[2] : part[3]] for part in parts])
        size = dim * _BITS[name] // 8
        if len(data) % size if size else data:
            raise MalformedError(f"{path_of(spans[-1])}: {len(data)} bytes are no whole vectors of {dim} dimensions")
        cells = [data[at : at + size] for at in range(0, len(data), size)] if size else []
        return Column(head, (4, number), name, cells, valid, dim)
    return Column(head, (4,), "", (), valid, dim)


def _known(spans: Sequence[Span], found: Found) -> Found:
    """The member of a oneof that is set; refuses data of a kind that is not known, which would be lost."""
    passed = sum(span[3] - span[2] for span in spans) - sum(one[3] - one[0] for some in found.values() for one in some)
    if passed:
        raise MalformedError(f"{path_of(spans[-1])}: {passed} bytes are data of a kind that cannot be cut by row")
    return {name: some for name, some in found.items() if name not in (CLEARED, "dim")}


def _numbers(body: bytes, found: Found, names: Mapping[str, int]) -> dict[int, int]:
    return {number: read_uint(body, found, name) or 0 for name, number in names.items() if name in found}


def _cells(body: bytes, kind: str, spans: Sequence[Span]) -> Iterator[bytes]:
    """The encoded values of a repeated field, packed or not."""
    for span in spans:
        start, end = span[2], span[3]
        if kind in _SIZES:
            size = _SIZES[kind]
            if (end - start) % size:
                raise MalformedError(f"{path_of(span)}: {end - start} bytes are no whole numbers of {size} bytes")
            yield from (body[at : at + size] for at in range(start, end, size))
        elif kind == "uints":
            first = start
            for at in range(start, end):
                if body[at] < 128:
                    yield body[first : at + 1]
                    first = at + 1
            if first != end:
                raise MalformedError(f"{path_of(span)}: it ends within a number")
        else:
            yield body[start:end]


def cut_rows(column: Column, count: int) -> list[Column]:
    """The `count` rows of a column, each a column of its own. Raises MalformedError where it has another number."""
    valid = column.valid
    if valid and len(valid) != count:
        raise MalformedError(f"a column says of {len(valid)} rows whether they are null, and there are {count}")
    fields = [cut_rows(one, count) for one in column.fields]
    there = [True] * count if column.cells else [False] * count
    if valid and len(column.cells) == sum(valid):
        there = list(valid)
    if len(column.cells) != sum(there):
        raise MalformedError(f"a column has {len(column.cells)} values for {count} rows")
    cells = iter(column.cells)
    return [
        column._replace(
            cells=[next(cells)] if there[row] else [],
            valid=valid[row : row + 1],
            fields=[one[row] for one in fields],
        )
        for row in range(count)
    ]


def join_rows(rows: Sequence[Column]) -> Column:
    """One column of all these rows (at least one). Raises MalformedError for rows of different kinds or dimensions."""
    first = max(rows, key=lambda row: (len(row.member), len(row.cells)))
    if any(row.member not in (first.member, first.member[:1], ()) for row in rows):
        raise MalformedError(f"columns of different kinds: {sorted({row.member for row in rows})}")
    dims = {row.dim for row in rows if row.cells}
    if len(dims) > 1 and first.kind != "sparse":
        raise MalformedError(f"vectors of different dimensions in one column: {sorted(dims)}")
    told = any(row.valid for row in rows)
    numbers = {number for row in rows for number in row.beside}
    return first._replace(
        cells=[cell for row in rows for cell in row.cells],
        valid=[one for row in rows for one in (row.valid or [True])] if told else (),
        dim=max(row.dim for row in rows),
        beside={number: max(row.beside.get(number, 0) for row in rows) for number in sorted(numbers)},
        fields=[join_rows(inner) for inner in zip(*(row.fields for row in rows), strict=True)],
    )


def write_column(column: Column) -> bytes:
    """A FieldData's message."""
    valid = bytes(column.valid)
    return column.head + _write_data(column) + (encode_field(7, valid) if valid else b"")


def _write_data(column: Column) -> bytes:
    if not column.member:
        return b""
    if column.member[0] == 8:
        return encode_field(8, b"".join(encode_field(1, write_column(one)) for one in column.fields))
    dim = b"\x08" + encode_varint(column.dim) if column.member[0] == 4 and column.dim else b""
    if len(column.member) == 1:
        return encode_field(column.member[0], dim)
    return encode_field(column.member[0], dim + encode_field(column.member[1], _write_cells(column)))


def _write_cells(column: Column) -> bytes:
    if column.kind in _BYTES:
        return b"".join(column.cells)
    beside = b"".join(encode_varint(number << 3) + encode_varint(value) for number, value in column.beside.items())
    if column.kind in ("string", "sparse", "vectors"):
        number = 2 if column.kind == "vectors" else 1
        return b"".join(encode_field(number, cell) for cell in column.cells) + beside
    return encode_field(1, b"".join(column.cells)) if column.cells else b""
