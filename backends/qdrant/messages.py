"""Points between Qdrant's protobuf messages and the Index's own, for those who move many.

The client library turns each message into models of its own and those into messages again, which costs a multiple of
what the database takes for it. Here a payload stays what it was, and dense vectors go over as bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from uuid import UUID

import numpy as np
from qdrant_client import grpc as pb
from qdrant_client.conversions.conversion import GrpcToRest, json_to_value, value_to_json

from ..dialect import Float32
from ..index import Point, PointId, SparseVector
from ..wire import encode_field, encode_varint

_DATA: Final = 1  # the number of DenseVector.data


class MessagePayload(Mapping[str, object]):
    """A payload as it came; a value becomes Python when somebody asks for it. `fields` is its map of messages."""

    __slots__ = ("fields",)

    def __init__(self, fields: Any) -> None:
        self.fields = fields

    def __getitem__(self, key: str) -> object:
        if key not in self.fields:  # a protobuf map would make it
            raise KeyError(key)
        return value_to_json(self.fields[key])

    def __iter__(self) -> Iterator[str]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __repr__(self) -> str:
        return repr(dict(self))


def read_id(message: pb.PointId) -> PointId:
    """An id as Qdrant answers with it: a number, or a UUID in lower case with dashes."""
    return message.num if message.HasField("num") else str(UUID(message.uuid))


def write_id(point: PointId) -> pb.PointId:
    """An id as a message."""
    return pb.PointId(num=point) if isinstance(point, int) else pb.PointId(uuid=point)


def read_message(message: pb.RetrievedPoint) -> Point:
    """A point as it was answered, with its vectors, dense (dim,) or (n, dim), by field name."""
    dense: dict[str, Float32] = {}
    sparse: dict[str, SparseVector] = {}
    for name, vector in _read_named(message.vectors).items():
        if vector.WhichOneof("vector") == "dense":
            dense[name] = read_dense(vector.dense)
            continue
        other: Any = GrpcToRest.convert_vector_output(vector)
        if isinstance(other, list):
            dense[name] = np.array(other, dtype=np.float32)
        else:
            sparse[name] = SparseVector(np.array(other.indices, np.uint32), np.array(other.values, np.float32))
    return Point(read_id(message.id), dense, MessagePayload(message.payload), sparse)


def _read_named(vectors: pb.VectorsOutput) -> dict[str, pb.VectorOutput]:
    match vectors.WhichOneof("vectors_options"):
        case "vector":
            return {"": vectors.vector}
        case "vectors":
            named = vectors.vectors.vectors
            return {name: named[name] for name in named}
    return {}


def write_message(point: Point, made: pb.PointStruct) -> None:
    """Put a point that is to be written into its message; a lone vector in the field "" is the default one."""
    made.id.CopyFrom(write_id(point.id))
    if isinstance(point.payload, MessagePayload):
        made.payload.MergeFrom(point.payload.fields)
    else:
        for key, value in point.payload.items():
            made.payload[key].CopyFrom(json_to_value(value))
    if point.vectors.keys() == {""} and not point.sparse:
        _write_vector(point.vectors[""], made.vectors.vector)
        return
    named = made.vectors.vectors
    named.SetInParent()  # a point may have no vector at all
    for name, vector in point.vectors.items():
        _write_vector(vector, named.vectors[name])
    for name, other in point.sparse.items():
        into = named.vectors[name].sparse
        into.SetInParent()
        into.indices.extend(other.indices.tolist())
        into.values.extend(other.values.tolist())


def _write_vector(vector: Float32, into: pb.Vector) -> None:
    if vector.ndim == 1:
        write_dense(vector, into.dense)
        return
    into.multi_dense.SetInParent()
    for row in vector:
        write_dense(row, into.multi_dense.vectors.add())


def read_dense(message: pb.DenseVector) -> Float32:
    """The numbers (dim,) of a vector, from its bytes: one by one they take several times as long."""
    count = len(message.data)
    start = 1 + len(encode_varint(4 * count))
    return np.frombuffer(message.SerializeToString(), "<f4", count, start) if count else np.empty(0, np.float32)


def write_dense(vector: Float32, into: pb.DenseVector) -> None:
    """Put the numbers (dim,) of a vector into its message, as bytes."""
    data = vector.astype("<f4", copy=False).tobytes()
    into.SetInParent()
    if data:
        into.MergeFromString(encode_field(_DATA, data))
