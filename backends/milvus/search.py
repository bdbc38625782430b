"""gRPC requests that search: Search and HybridSearch.

A search says with the parameter `anns_field` which field it asks; without one it asks the only vector field. The bounds
`radius` and `range_filter` stand among the parameters, or in the JSON of the parameter `params`, or in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from ..dialect import MalformedError, RequestContext, Role, Schema, ScoreSlot
from ..json_spans import EVERYTHING, Value, read_number, read_string, scan_json
from ..wire import Found, read_text, root_span, scan
from .message import MilvusMessage, name_collection
from .pairs import Params, read_pairs
from .placeholder import add_queries
from .schema import SHAPES
from .slots import GrpcReader, NumberPlace, edit_grpc

_BOUNDS: Final = ("radius", "range_filter")
# An iterator's bounds are scores of its last page: they are in the index's space already.
_ITERATORS: Final = ("iterator", "search_iter_v2")


@lru_cache(maxsize=8)
def wanted_keys(model_param: str) -> frozenset[bytes]:
    """The search parameters that matter here."""
    return frozenset(key.encode() for key in ("anns_field", "params", model_param, *_BOUNDS, *_ITERATORS))


def read_search(body: bytes, context: RequestContext) -> MilvusMessage:
    """The placeholder group of one search, and of the sub-searches inside it."""
    found = scan(body, (root_span(body, "SearchRequest"),), SHAPES["SearchRequest"])
    reader, schema = open_reader(body, found, context)
    _add_search(reader, found, context, schema)
    for span in found.get("sub_reqs", ()):
        _add_search(reader, scan(body, (span,), SHAPES["SubSearchRequest"]), context, schema)
    return _finish(reader, "output_fields" in found)._replace(schema=schema)


def read_hybrid_search(body: bytes, context: RequestContext) -> MilvusMessage:
    """The placeholder groups of requests[], each with its own field."""
    found = scan(body, (root_span(body, "HybridSearchRequest"),), SHAPES["HybridSearchRequest"])
    reader, schema = open_reader(body, found, context)
    for span in found.get("requests", ()):
        _add_search(reader, scan(body, (span,), SHAPES["SearchRequest"]), context, schema)
    return _finish(reader, "output_fields" in found)


def open_reader(
    body: bytes, found: Found, context: RequestContext, role: Role = Role.QUERY
) -> tuple[GrpcReader, Schema | None]:
    """A reader for the collection that a request names, and what is known of it."""
    database, collection = read_text(body, found, "db_name"), read_text(body, found, "collection_name")
    name = name_collection(database, collection, context.headers)
    return GrpcReader(body, name, role, []), context.find_schema(name)


def _finish(reader: GrpcReader, wants_vectors: bool) -> MilvusMessage:
    return MilvusMessage(reader.body, (reader.collection,), reader.slots, wants_vectors, reader.unsettled, edit_grpc)


def _add_search(reader: GrpcReader, found: Found, context: RequestContext, schema: Schema | None) -> None:
    params = read_pairs(reader.body, found.get("search_params", ()), wanted_keys(context.model_param))
    field = _value(reader.body, params, "anns_field") or None
    if field is None and schema is not None:
        field = schema.only_vector
    bounds, model = _read_json(reader, params, context.model_param)
    model = _value(reader.body, params, context.model_param) or model
    count = len(reader.slots)
    if "placeholder_group" in found:
        add_queries(reader, found["placeholder_group"], field, model, schema)
    if len(reader.slots) == count:
        return
    if field is None and schema is None:
        reader.unsettled = True
    if not any(_is_true(reader.body, params, name) for name in _ITERATORS):
        for place, score in [*_read_bounds(reader.body, params), *bounds]:
            reader.slots.append(ScoreSlot(reader.collection, field, score, place))


def _value(body: bytes, params: Params, key: str) -> str:
    span = params.get(key)
    if span is None:
        return ""
    try:
        return body[span[2] : span[3]].decode()
    except UnicodeDecodeError:
        raise MalformedError(f"search parameter {key!r}: the value is not UTF-8") from None


def _is_true(body: bytes, params: Params, key: str) -> bool:
    return _value(body, params, key).lower() == "true"


def _read_bounds(body: bytes, params: Params) -> list[tuple[NumberPlace, float]]:
    bounds = []
    for key in _BOUNDS:
        if key in params:
            span = params[key]
            try:
                bounds.append((NumberPlace(span[2], span[3], span), float(body[span[2] : span[3]])))
            except ValueError:
                continue  # no number: the upstream will say what is wrong with it
    return bounds


def _read_json(
    reader: GrpcReader, params: Params, model_param: str
) -> tuple[Sequence[tuple[NumberPlace, float]], str | None]:
    """Bounds and the declared model in the JSON of `params`; most searches have neither."""
    span = params.get("params")
    if span is None:
        return (), None
    text = reader.body[span[2] : span[3]]
    if b"ra" not in text and model_param.encode() not in text:
        return (), None
    try:
        members = scan_json(text, dict.fromkeys((*_BOUNDS, model_param, "params"), EVERYTHING)).members
    except MalformedError:
        return (), None  # the upstream will say what is wrong with it
    nested = members["params"].members if "params" in members else {}
    bounds = [
        (NumberPlace(span[2] + value.start, span[2] + value.end, span), score)
        for level in (members, nested)
        for key in _BOUNDS
        if key in level and (score := _number(text, level[key])) is not None
        for value in (level[key],)
    ]
    return bounds, read_string(text, members.get(model_param)) or read_string(text, nested.get(model_param))


def _number(text: bytes, value: Value) -> float | None:
    return read_number(text, value)
