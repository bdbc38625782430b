"""Which points the vectors of a write belong to, in the order in which write.py and rest.py find them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from typing import Final

from ..dialect import Operation, Role, Schema, VectorSlot
from ..index import PointId
from ..json_spans import EVERYTHING
from ..wire import Span, compile_shapes, read_ints, root_span, scan
from .columns import add_columns
from .message import MilvusMessage
from .rest_slots import RestReader
from .rest_touches import each_row, read_row_key
from .schema import SHAPES
from .slots import GrpcReader
from .touches import read_keys

TABLE: Final = {"FieldData": "valid_data=7:uints"}
_VALID: Final = compile_shapes(TABLE)["FieldData"]

Owners = Sequence[Sequence[PointId]]


def find_owners(operation: Operation, request: MilvusMessage) -> Owners:
    """For each slot of a write the ids of its rows; none where they cannot be told. Raises MalformedError."""
    schema = request.schema
    if schema is None or not schema.key:
        return [()] * len(request.slots)
    if operation.transport == "rest":
        return _read_rows(request.body, schema)
    message = f"{operation.name}Request"
    columns = scan(request.body, (root_span(request.body, message),), SHAPES[message]).get("fields_data", ())
    keys = read_keys(request.body, columns, schema.key)
    return [owners for column in columns for owners in _read_column(request.body, column, keys)]


def _read_column(body: bytes, column: Span, keys: Sequence[PointId]) -> Owners:
    """The owners of the one slot that a column gives, or of none."""
    reader = GrpcReader(body, "", Role.DOCUMENT, [])
    add_columns(reader, (column,))
    return [_match(slot, _read_valid(body, column), keys) for slot in reader.slots]


def _read_valid(body: bytes, column: Span) -> list[int]:
    """Which rows of a column have a value; empty where all have one."""
    return read_ints(body, scan(body, (column,), _VALID).get("valid_data", ()))


def _match(slot: object, valid: Sequence[int], keys: Sequence[PointId]) -> Sequence[PointId]:
    """The keys of the rows that have a vector."""
    owned = list(compress(keys, valid)) if valid else keys
    return owned if isinstance(slot, VectorSlot) and len(slot.rows) == len(owned) else ()


def _read_rows(body: bytes, schema: Schema) -> Owners:
    owners: list[Sequence[PointId]] = []
    for row in each_row(body, dict.fromkeys((schema.key, *schema.vectors), EVERYTHING)):
        reader = RestReader(body, "", Role.DOCUMENT, schema)
        for field, form in schema.vectors.items():
            reader.add_vector(row.members.get(field), field, form)
        key = read_row_key(body, row, schema)
        owners += [() if key is None else (key,)] * len(reader.slots)
    return owners
