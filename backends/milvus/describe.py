"""What is told of a collection's fields: its schema as other codecs need it, and the lengths that clients build by.

pymilvus makes its columns by the length that DescribeCollection tells, and keeps it, so a client of another model must
be told the length of that model's vectors.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence

from ..dialect import DimSlot, Message, Operation, RefusedError, RequestContext, Schema, Transport
from ..wire import Found, Span, encode_field, read_text, read_uint, rewrite, root_span, scan
from .message import MilvusMessage, name_collection, split_collection
from .rest_describe import find_rest_dims, write_rest_dims
from .schema import DENSE_TYPES, SERVICE, SHAPES, VARCHAR
from .slots import NumberPlace, edit_grpc

_ONE = "DescribeCollectionResponse"
_GRPC_HEADERS = {"content-type": "application/grpc", "te": "trailers"}
# Of the call that made this one necessary: its own encodings, length and deadline.
_OWN_HEADERS = ("grpc-encoding", "grpc-accept-encoding", "grpc-timeout", "content-length", "host")
_MANY = "BatchDescribeCollectionResponse"


class MilvusSchemas:
    """See dialect.SchemaCodec."""

    path = f"{SERVICE}/DescribeCollection"

    def ask(self, collection: str) -> bytes:
        """A DescribeCollectionRequest."""
        database, name = split_collection(collection)
        named = encode_field(3, name.encode())
        return encode_field(2, database.encode()) + named if database else named

    def form_headers(self, transport: Transport, headers: Mapping[str, str]) -> Mapping[str, str]:
        """The client's own metadata; REST's bearer token in the form in which gRPC has it."""
        if transport == "grpc":
            return {name: value for name, value in headers.items() if name not in _OWN_HEADERS} | _GRPC_HEADERS
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return _GRPC_HEADERS
        return {**_GRPC_HEADERS, "authorization": b64encode(token.strip().encode()).decode()}

    def read(self, body: bytes) -> Schema:
        """The dense fields and the key in a DescribeCollectionResponse. Raises RefusedError and MalformedError."""
        found = scan(body, (root_span(body, _ONE),), SHAPES[_ONE])
        if "schema" not in found:
            status = scan(body, found.get("status", ()), SHAPES["Status"])
            raise RefusedError(read_text(body, status, "reason") or "no schema in the answer")
        vectors, key, text_ids, makes_ids = {}, "", False, False
        for name, kind, field in _fields(body, found):
            if kind in DENSE_TYPES:
                vectors[name] = DENSE_TYPES[kind]
            elif read_uint(body, field, "is_primary_key"):
                key, text_ids, makes_ids = name, kind == VARCHAR, bool(read_uint(body, field, "autoID"))
        return Schema(vectors, key, text_ids, makes_ids)

    def find_dims(self, operation: Operation, request: Message, body: bytes) -> Sequence[DimSlot]:
        """The lengths in the answer of DescribeCollection, BatchDescribeCollection and REST's describe."""
        if operation.transport == "rest":
            return find_rest_dims(body, request.collections)
        if operation.name == "DescribeCollection":
            answer = scan(body, (root_span(body, _ONE),), SHAPES[_ONE])
            return list(_find_dims(body, answer, request.collections[0]))
        spans = scan(body, (root_span(body, _MANY),), SHAPES[_MANY]).get("responses", ())
        if len(spans) != len(request.collections):
            return []
        return [
            slot
            for span, collection in zip(spans, request.collections, strict=True)
            for slot in _find_dims(body, scan(body, (span,), SHAPES[_ONE]), collection)
        ]

    def write_dims(self, operation: Operation, body: bytes, edits: Sequence[tuple[DimSlot, int]]) -> bytes:
        """That answer with other lengths and everything else untouched."""
        if operation.transport == "rest":
            return write_rest_dims(body, edits)
        patches = []
        for slot, dim in edits:
            place = slot.place
            assert isinstance(place, NumberPlace)
            if dim != slot.dim:
                patches.append((place.start, place.end, str(dim).encode(), place.around))
        return rewrite(body, patches)


def _fields(body: bytes, answer: Found) -> Iterator[tuple[str, int, Found]]:
    """The name, data type and parts of every field."""
    schema = scan(body, answer.get("schema", ()), SHAPES["CollectionSchema"])
    for span in schema.get("fields", ()):
        found = scan(body, (span,), SHAPES["FieldSchema"])
        yield read_text(body, found, "name"), read_uint(body, found, "data_type") or 0, found


def _find_dims(body: bytes, answer: Found, collection: str) -> Iterator[DimSlot]:
    for name, kind, field in _fields(body, answer):
        if kind not in DENSE_TYPES:
            continue
        for span in field.get("type_params", ()):
            pair = scan(body, (span,), SHAPES["KeyValuePair"])
            if read_text(body, pair, "key") == "dim" and "value" in pair:
                value: Span = pair["value"][-1]
                text = body[value[2] : value[3]]
                if text.isdigit():
                    yield DimSlot(collection, name, int(text), NumberPlace(value[2], value[3], value))


def read_describe(body: bytes, context: RequestContext) -> MilvusMessage:
    """A collection's name; its answer tells lengths."""
    return _read_names(body, context, "DescribeCollectionRequest")


def read_batch_describe(body: bytes, context: RequestContext) -> MilvusMessage:
    """Several collections' names."""
    return _read_names(body, context, "BatchDescribeCollectionRequest")


def _read_names(body: bytes, context: RequestContext, message: str) -> MilvusMessage:
    found = scan(body, (root_span(body, message),), SHAPES[message])
    database = read_text(body, found, "db_name")
    spans = found.get("collection_name", ())
    if message == "DescribeCollectionRequest":
        spans = spans[-1:]
    collections = [
        name_collection(database, read_text(body, {"name": [span]}, "name"), context.headers) for span in spans
    ]
    return MilvusMessage(body, collections, (), True, False, edit_grpc)
