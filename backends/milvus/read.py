"""The gRPC request that names rows, not vectors, and the answers that carry vectors: Query and both searches."""

from __future__ import annotations

from ..dialect import RequestContext, Role
from ..wire import Found, root_span, scan
from .columns import add_columns
from .message import MilvusMessage
from .schema import SHAPES
from .search import open_reader
from .slots import GrpcReader, edit_grpc

_COLUMNS = ("fields_data", "group_by_field_value", "group_by_field_values")


def read_query(body: bytes, context: RequestContext) -> MilvusMessage:
    """An expression or ids only; its answer may carry vectors (get, delete by filter and iterators send it too)."""
    found = scan(body, (root_span(body, "QueryRequest"),), SHAPES["QueryRequest"])
    reader, _ = open_reader(body, found, context)
    return MilvusMessage(body, (reader.collection,), (), "output_fields" in found, False, edit_grpc)


def read_query_answer(body: bytes, request: MilvusMessage) -> MilvusMessage:
    """Vectors of fields_data[]."""
    return _finish(body, request, scan(body, (root_span(body, "QueryResults"),), SHAPES["QueryResults"]))


def read_search_answer(body: bytes, request: MilvusMessage) -> MilvusMessage:
    """Vectors of results.fields_data[] and of the fields grouped by."""
    found = scan(body, (root_span(body, "SearchResults"),), SHAPES["SearchResults"])
    return _finish(body, request, scan(body, found.get("results", ()), SHAPES["SearchResultData"]))


def _finish(body: bytes, request: MilvusMessage, found: Found) -> MilvusMessage:
    reader = GrpcReader(body, request.collections[0], Role.RESULT, [])
    for name in _COLUMNS:
        add_columns(reader, found.get(name, ()))
    return MilvusMessage(body, request.collections, reader.slots, False, False, edit_grpc)
