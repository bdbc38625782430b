"""REST requests and answers, v2 and v1: the rules are those of gRPC, read from JSON.

A list of numbers may be a vector or an array field, and a string a text or the bytes of a half-precision vector: only
the collection's schema says which. JSON that is valid but not of the expected shape gives no slot: the upstream will
say what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final
from urllib.parse import parse_qs

from ..dialect import RequestContext, Role, Schema
from ..json_spans import EVERYTHING, Value, Wanted, read_string, scan_json
from .message import MilvusMessage, name_collection
from .rest_slots import RestReader, edit_rest

RestRequestReader = Callable[[bytes, RequestContext], MilvusMessage]

_NAMES: Final[dict[str, Wanted]] = {"collectionName": EVERYTHING, "dbName": EVERYTHING}
_SEARCH: Final[dict[str, Wanted]] = dict.fromkeys(("data", "vector", "annsField", "searchParams", "params"), EVERYTHING)
_SEARCHES: Final[dict[str, Wanted]] = {**_SEARCH, "search": _SEARCH, "outputFields": EVERYTHING}
_BOUNDS: Final = ("radius", "range_filter")


def read_rows(body: bytes, context: RequestContext) -> MilvusMessage:
    """Insert and upsert: data[] (in v1 perhaps one row alone), whose keys are fields."""
    collection, schema = _find_collection(body, context)
    reader = RestReader(body, collection, Role.DOCUMENT, schema)
    if schema is not None:
        data = scan_json(body, {"data": dict.fromkeys(schema.vectors, EVERYTHING)}).members.get("data")
        _add_rows(reader, _each(data), schema)
    return _finish(reader, wants_vectors=False)


def read_search(body: bytes, context: RequestContext) -> MilvusMessage:
    """Search in both versions, hybrid_search and advanced_search: data[] or vector, or search[] of such."""
    collection, schema = _find_collection(body, context)
    reader = RestReader(body, collection, Role.QUERY, schema)
    root = scan_json(body, _SEARCHES)
    if schema is not None:
        for search in (root, *_each(root.members.get("search"))):
            _add_search(reader, search, schema, context.model_param)
    fields = root.members.get("outputFields")
    return _finish(reader, wants_vectors=fields is not None and bool(fields.elements))


def read_selection(body: bytes, context: RequestContext) -> MilvusMessage:
    """Get and query: ids or a filter; their answers carry every field unless they say otherwise."""
    collection, schema = _find_collection(body, context)
    return _finish(RestReader(body, collection, Role.QUERY, schema), wants_vectors=True)


def read_description(body: bytes, context: RequestContext) -> MilvusMessage:
    """A collection's name, in the body or, in v1, in the query string; the answer tells lengths."""
    if body:
        collection, _ = _find_collection(body, context)
    else:
        asked = parse_qs(context.query)
        database = asked.get("dbName", [""])[0]
        collection = name_collection(database, asked.get("collectionName", [""])[0], context.headers)
    return MilvusMessage(body, (collection,), (), True, False, edit_rest)


def read_answer(body: bytes, request: MilvusMessage) -> MilvusMessage:
    """The vectors of data[], a row each."""
    schema = request.schema
    reader = RestReader(body, request.collections[0], Role.RESULT, schema)
    if schema is not None:
        data = scan_json(body, {"data": dict.fromkeys(schema.vectors, EVERYTHING)}).members.get("data")
        _add_rows(reader, _each(data), schema)
    return MilvusMessage(body, request.collections, reader.slots, False, False, edit_rest)


def _find_collection(body: bytes, context: RequestContext) -> tuple[str, Schema | None]:
    members = scan_json(body, _NAMES).members
    database = read_string(body, members.get("dbName")) or ""
    name = name_collection(database, read_string(body, members.get("collectionName")) or "", context.headers)
    return name, context.find_schema(name)


def _finish(reader: RestReader, *, wants_vectors: bool) -> MilvusMessage:
    schema = reader.schema
    return MilvusMessage(
        reader.body, (reader.collection,), reader.slots, wants_vectors, schema is None, edit_rest, schema
    )


def _each(value: Value | None) -> Iterable[Value]:
    """The elements of a list, or the one thing that stands in its place."""
    if value is None:
        return ()
    return value.elements if value.kind == "array" else (value,)


def _add_rows(reader: RestReader, rows: Iterable[Value], schema: Schema) -> None:
    for row in rows:
        for field, form in schema.vectors.items():
            reader.add_vector(row.members.get(field), field, form)


def _add_search(reader: RestReader, search: Value, schema: Schema, model_param: str) -> None:
    members = search.members
    field = read_string(reader.body, members.get("annsField")) or schema.only_vector
    levels = [members[name] for name in ("searchParams", "params") if name in members]
    levels += [level.members["params"] for level in levels if "params" in level.members]
    model = next((found for level in levels if (found := read_string(reader.body, level.members.get(model_param)))), "")
    form = schema.vectors.get(field or "")
    data = members.get("data", members.get("vector"))
    if field is None or form is None or data is None:
        return  # another kind of vector, or none that could be told
    count = len(reader.slots)
    for query in data.elements if data.kind == "array" else (data,):
        reader.add_query(query, field, form, model)
    if len(reader.slots) > count:
        for level in levels:
            for name in _BOUNDS:
                reader.add_score(level.members.get(name), field)
