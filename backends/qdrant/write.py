"""gRPC requests that store vectors: Upsert, UpdateVectors, UpdateBatch."""

from __future__ import annotations

from collections.abc import Sequence

from ..dialect import Role
from ..wire import Shape, Span, read_text, root_span, scan
from .message import QdrantMessage
from .schema import SHAPES
from .wire_slots import VECTOR, WireReader, edit_wire

_VECTORS = SHAPES["Vectors"]
_NAMED = SHAPES["NamedVectors"]
_ENTRY = SHAPES["NamedVectors.VectorsEntry"]
POINT_STRUCT = SHAPES["PointStruct"]
POINT_VECTORS = SHAPES["PointVectors"]


def read_upsert(body: bytes) -> QdrantMessage:
    """Vectors of points[].vectors."""
    return _read_points(body, "UpsertPoints", POINT_STRUCT)


def read_update_vectors(body: bytes) -> QdrantMessage:
    """Vectors of points[].vectors."""
    return _read_points(body, "UpdatePointVectors", POINT_VECTORS)


def read_update_batch(body: bytes) -> QdrantMessage:
    """Vectors of operations[].upsert and operations[].update_vectors."""
    found = scan(body, (root_span(body, "UpdateBatchPoints"),), SHAPES["UpdateBatchPoints"])
    reader = WireReader(body, read_text(body, found, "collection_name"), Role.DOCUMENT, [])
    for span in found.get("operations", ()):
        operation = scan(body, (span,), SHAPES["PointsUpdateOperation"])
        if "upsert" in operation:
            points = scan(body, operation["upsert"], SHAPES["PointsUpdateOperation.PointStructList"])
            add_points(reader, points.get("points", ()), POINT_STRUCT)
        elif "update_vectors" in operation:
            points = scan(body, operation["update_vectors"], SHAPES["PointsUpdateOperation.UpdateVectors"])
            add_points(reader, points.get("points", ()), POINT_VECTORS)
    return _finish(reader)


def _read_points(body: bytes, message: str, point: Shape) -> QdrantMessage:
    found = scan(body, (root_span(body, message),), SHAPES[message])
    reader = WireReader(body, read_text(body, found, "collection_name"), Role.DOCUMENT, [])
    add_points(reader, found.get("points", ()), point)
    return _finish(reader)


def add_points(reader: WireReader, points: Sequence[Span], shape: Shape) -> None:
    """The slots of points, one after the other."""
    body = reader.body
    for point in points:
        found = scan(body, (point,), shape)
        if "vectors" in found:
            vectors = scan(body, found["vectors"], _VECTORS)
            if "vector" in vectors:
                reader.add_vector(vectors["vector"], VECTOR, "")
            elif "vectors" in vectors:
                add_named(reader, vectors["vectors"], _NAMED, _ENTRY, VECTOR)


def add_named(reader: WireReader, spans: Sequence[Span], named: Shape, entry: Shape, vector: Shape) -> None:
    """The slots of a map from name to vector; of entries with one name the last is in force."""
    body = reader.body
    entries = {}
    for span in scan(body, spans, named).get("vectors", ()):
        found = scan(body, (span,), entry)
        entries[read_text(body, found, "key")] = found.get("value", ())
    for name, value in entries.items():
        reader.add_vector(value, vector, name)


def _finish(reader: WireReader) -> QdrantMessage:
    return QdrantMessage(reader.body, (reader.collection,), reader.slots, False, None, edit_wire)
