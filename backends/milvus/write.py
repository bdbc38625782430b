"""gRPC requests that store vectors: Insert and Upsert (a partial one too: its columns are those it changes)."""

from __future__ import annotations

from ..dialect import RequestContext, Role
from ..wire import root_span, scan
from .columns import add_columns
from .message import MilvusMessage
from .schema import SHAPES
from .search import open_reader
from .slots import edit_grpc


def read_insert(body: bytes, context: RequestContext) -> MilvusMessage:
    """Vectors of fields_data[]."""
    return _read_columns(body, context, "InsertRequest")


def read_upsert(body: bytes, context: RequestContext) -> MilvusMessage:
    """Vectors of fields_data[]."""
    return _read_columns(body, context, "UpsertRequest")


def _read_columns(body: bytes, context: RequestContext, message: str) -> MilvusMessage:
    found = scan(body, (root_span(body, message),), SHAPES[message])
    reader, schema = open_reader(body, found, context, Role.DOCUMENT)
    add_columns(reader, found.get("fields_data", ()))
    return MilvusMessage(body, (reader.collection,), reader.slots, False, False, edit_grpc, schema)
