"""Which points a REST write names, v2 and v1: by the keys of its rows, by ids, or by a filter that lists them.

A query over REST cannot ask for strong consistency, so the points of any other filter cannot be listed. JSON that is
valid but not of the expected shape names no points: Milvus will refuse it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson

from ..dialect import MalformedError, RequestContext, Schema
from ..index import PointId
from ..json_spans import EVERYTHING, Value, Wanted, read_string, scan_json
from ..writing import Step, Write
from .expressions import find_points, read_key
from .message import name_collection

BY_FILTER: Final = "points are deleted by a filter, and Milvus's REST does not list with strong consistency which"
_FINE: Final = (0, 200)  # of v2 and v1
_CREATED: Final = ("insertIds", "upsertIds")


def read_points_write(name: str, body: bytes, context: RequestContext) -> Write:
    """Insert, upsert or delete. Raises MalformedError."""
    members = scan_json(body, dict.fromkeys(("collectionName", "dbName"), EVERYTHING)).members
    collection = read_string(body, members.get("collectionName")) or ""
    named = name_collection(read_string(body, members.get("dbName")) or "", collection, context.headers)
    schema = context.find_schema(named)
    if schema is None or not schema.key:
        return Write("points", (named,), unsettled=True)
    if name == "Delete":
        return _read_delete(body, named, schema)
    step = Step(read_keys(body, schema), creates=schema.makes_ids)
    return Write("points", (named,), [step], text_ids=schema.text_ids)


def read_keys(body: bytes, schema: Schema) -> list[PointId]:
    """The keys of the rows that have one."""
    found = (read_row_key(body, row, schema) for row in each_row(body, {schema.key: EVERYTHING}))
    return [one for one in found if one is not None]


def each_row(body: bytes, wanted: dict[str, Wanted]) -> Iterator[Value]:
    """The rows of data[], or in v1 perhaps the one that stands in its place."""
    data = scan_json(body, {"data": wanted}).members.get("data")
    if data is not None:
        yield from data.elements if data.kind == "array" else (data,)


def read_row_key(body: bytes, row: Value, schema: Schema) -> PointId | None:
    """The key of one row; None where it has none."""
    value = row.members.get(schema.key)
    if value is None:
        return None
    return read_key(orjson.loads(body[value.start : value.end]), text_ids=schema.text_ids)


def _read_delete(body: bytes, named: str, schema: Schema) -> Write:
    members = scan_json(body, dict.fromkeys(("filter", "id", "ids", "exprParams"), EVERYTHING)).members
    ids = [one for name in ("id", "ids") for one in _read_ids(body, members.get(name), schema)]
    text = read_string(body, members.get("filter"))
    if text:
        listed = find_points(text, schema.key, text_ids=schema.text_ids) if "exprParams" not in members else None
        if listed is None:
            return Write("anything", (named,), reason=BY_FILTER)
        ids += listed
    return Write("points", (named,), [Step(ids)])


def _read_ids(body: bytes, value: Value | None, schema: Schema) -> list[PointId]:
    if value is None:
        return []
    parsed = orjson.loads(body[value.start : value.end])
    listed = parsed if isinstance(parsed, list) else [parsed]
    found = (read_key(one, text_ids=schema.text_ids) for one in listed)
    return [one for one in found if one is not None]


def read_mutated(answer: bytes, *, text_ids: bool) -> list[PointId]:
    """The ids that the answer to a write tells; none of a write that failed. Raises MalformedError."""
    parsed = _parse(answer)
    data = parsed.get("data") if parsed.get("code") in _FINE else None
    listed = [one for name in _CREATED for one in (data.get(name) if isinstance(data, dict) else None) or ()]
    found = (read_key(one, text_ids=text_ids) for one in listed)
    return [one for one in found if one is not None]


def _parse(answer: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(answer)
    except orjson.JSONDecodeError as error:
        raise MalformedError(f"not valid JSON at byte {error.pos}: {error.msg}") from error
    return parsed if isinstance(parsed, dict) else {}
