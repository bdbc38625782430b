"""Which points a gRPC write names: by the column of their keys, or by an expression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..dialect import MalformedError, RequestContext, Schema
from ..index import PointId
from ..wire import (
    Found,
    Patch,
    Span,
    compile_shapes,
    encode_field,
    encode_varint,
    read_ints,
    read_text,
    read_uint,
    root_span,
    scan,
)
from ..writing import ConditionSlot, Listed, Step, Write
from .expressions import find_points, hold_expression
from .message import name_collection
from .schema import SHAPES

TABLE: Final = {
    "DeleteRequest": (
        "db_name=2:string collection_name=3:string partition_name=4:string expr=5:string "
        "expr_template_values=8:ExprTemplateValuesEntry namespace=9:string"
    ),
    "ScalarField": (
        "bool_data=1:BoolArray|data int_data=2:IntArray|data long_data=3:LongArray|data float_data=4:FloatArray|data "
        "double_data=5:DoubleArray|data string_data=6:StringArray|data bytes_data=7:BytesArray|data "
        "array_data=8:ArrayArray|data json_data=9:JSONArray|data geometry_data=10:GeometryArray|data "
        "timestamptz_data=11:TimestamptzArray|data geometry_wkt_data=12:GeometryWktArray|data "
        "mol_data=13:MolArray|data mol_smiles_data=14:MolSmilesArray|data date_data=15:DateArray|data "
        "time_data=16:TimeArray|data"
    ),
    "LongArray": "data=1:uints",
    "StringArray": "data=1:string",
    "IDs": "int_id=1:LongArray|id_field str_id=2:StringArray|id_field",
    "MutationResult": "status=1:Status IDs=2:IDs",
    "QueryResults": "status=1:Status fields_data=2:FieldData primary_field_name=6:string",
}
_SHAPES: Final = compile_shapes(TABLE)
_ROWS: Final = {"Insert": "InsertRequest", "Upsert": "UpsertRequest"}


@dataclass(frozen=True, slots=True)
class ExpressionPlace:
    """An expression, the key of the points it names, and the parts of a Delete that narrow them as well."""

    expression: Span
    key: str
    text_ids: bool
    found: Found


def read_points_write(name: str, body: bytes, context: RequestContext) -> Write:
    """Insert, Upsert or Delete. Raises MalformedError."""
    message = _ROWS.get(name, "DeleteRequest")
    found = scan(body, (root_span(body, message),), SHAPES[message] if name in _ROWS else _SHAPES[message])
    database, collection = read_text(body, found, "db_name"), read_text(body, found, "collection_name")
    named = name_collection(database, collection, context.headers)
    schema = context.find_schema(named)
    if schema is None or not schema.key:
        return Write("points", (named,), unsettled=True)
    if name not in _ROWS:
        return Write("points", (named,), [_read_delete(body, found, schema)], text_ids=schema.text_ids)
    ids = read_keys(body, found.get("fields_data", ()), schema.key)
    return Write("points", (named,), [Step(ids, creates=schema.makes_ids)], text_ids=schema.text_ids)


def _read_delete(body: bytes, found: Found, schema: Schema) -> Step:
    if "expr" not in found:
        return Step()  # the database will refuse it
    text = read_text(body, found, "expr")
    if "expr_template_values" not in found:
        ids = find_points(text, schema.key, text_ids=schema.text_ids)
        if ids is not None:
            return Step(ids)
    return Step(condition=ConditionSlot(ExpressionPlace(found["expr"][-1], schema.key, schema.text_ids, found)))


def read_keys(body: bytes, columns: Sequence[Span], key: str) -> list[PointId]:
    """The values of the column of this name; none where there is none."""
    for span in columns:
        column = scan(body, (span,), SHAPES["FieldData"])
        if read_text(body, column, "field_name") == key:
            return _read_scalars(body, column)
    return []


def _read_scalars(body: bytes, column: Found) -> list[PointId]:
    values = scan(body, column.get("scalars", ()), _SHAPES["ScalarField"])
    return _read_values(body, values.get("long_data", ()), values.get("string_data", ()))


def _read_values(body: bytes, numbers: Sequence[Span], texts: Sequence[Span]) -> list[PointId]:
    if numbers:
        return [*read_ints(body, scan(body, numbers, _SHAPES["LongArray"]).get("data", ()))]
    found = scan(body, texts, _SHAPES["StringArray"])
    return [read_text(body, {"data": [span]}, "data") for span in found.get("data", ())]


def hold(body: bytes, slot: ConditionSlot, ids: Sequence[PointId]) -> Patch:
    """The patch that adds the points' keys to an expression: whatever it says, it then names none but these."""
    place = slot.place
    assert isinstance(place, ExpressionPlace)
    span = place.expression
    text = read_text(body, place.found, "expr")
    return (span[2], span[3], hold_expression(text, place.key, ids).encode(), span)


def list_points(body: bytes, slot: ConditionSlot, limit: int | None) -> bytes:
    """The QueryRequest that asks for the keys of an expression's points, at most `limit`, with strong consistency."""
    place = slot.place
    assert isinstance(place, ExpressionPlace)
    found = place.found
    copied = [
        encode_field(number, body[span[2] : span[3]])
        for name, number in (("db_name", 2), ("collection_name", 3), ("expr", 4), ("partition_name", 6))
        for span in found.get(name, ())[-1:]
        if span[3] > span[2]
    ]
    copied += [encode_field(5, place.key.encode())]
    if limit is not None:
        copied += [encode_field(9, encode_field(1, b"limit") + encode_field(2, str(limit).encode()))]
    copied += [encode_field(13, body[span[2] : span[3]]) for span in found.get("expr_template_values", ())]
    copied += [encode_field(14, body[span[2] : span[3]]) for span in found.get("namespace", ())[-1:]]
    return b"".join(copied) + b"\x58" + encode_varint(0)  # consistency_level: Strong


def read_listed(answer: bytes, few: int) -> Listed:
    """The keys in a QueryResults that was asked for nothing else; where there are exactly `few` there may be more.

    Raises MalformedError, also where Milvus refused.
    """
    found = scan(answer, (root_span(answer, "QueryResults"),), _SHAPES["QueryResults"])
    _refuse_failure(answer, found)
    columns = [scan(answer, (span,), SHAPES["FieldData"]) for span in found.get("fields_data", ())]
    key = read_text(answer, found, "primary_field_name")  # older Milvus does not tell it
    chosen = [one for one in columns if not key or read_text(answer, one, "field_name") == key]
    ids = _read_scalars(answer, chosen[0]) if chosen else []
    return Listed(ids, ids[-1] if len(ids) == few else None)


def read_mutated(answer: bytes) -> list[PointId]:
    """The ids that a MutationResult tells; none of a write that failed. Raises MalformedError."""
    found = scan(answer, (root_span(answer, "MutationResult"),), _SHAPES["MutationResult"])
    ids = scan(answer, found.get("IDs", ()), _SHAPES["IDs"])
    return _read_values(answer, ids.get("int_id", ()), ids.get("str_id", ()))


def _refuse_failure(answer: bytes, found: Found) -> None:
    status = scan(answer, found.get("status", ()), SHAPES["Status"])
    if read_uint(answer, status, "code") or read_uint(answer, status, "error_code"):
        raise MalformedError(read_text(answer, status, "reason") or "Milvus refuses to list the points")
