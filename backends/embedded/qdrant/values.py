"""Point ids, payload values and vectors: protobuf on one side, what the engine takes and gives on the other."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from google.protobuf.message import Message
from qdrant_client import grpc as pb

from ...qdrant.messages import read_dense
from ...wire import encode_field
from .engine import edge
from .errors import Unsupported, WrongInput

MAX_ID = 2**64 - 1


def read_id(point_id: pb.PointId) -> int | str:
    """The engine's point id; raises WrongInput when it is missing or not a UUID."""
    kind = point_id.WhichOneof("point_id_options")
    if kind == "num":
        return point_id.num
    if kind == "uuid":
        try:
            return str(UUID(point_id.uuid))
        except ValueError as error:
            raise WrongInput(f"Unable to parse UUID: {point_id.uuid}") from error
    raise WrongInput("No ID options provided")


def write_id(point_id: int | UUID | str) -> pb.PointId:
    """The protobuf of an engine's point id."""
    return pb.PointId(num=point_id) if isinstance(point_id, int) else pb.PointId(uuid=str(point_id))


def read_value(value: pb.Value) -> Any:
    """The plain Python (JSON) form of a payload value."""
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return read_payload(value.struct_value.fields)
    if kind == "list_value":
        return [read_value(item) for item in value.list_value.values]
    return None if kind is None or kind == "null_value" else getattr(value, kind)


def read_payload(fields: Mapping[str, pb.Value]) -> dict[str, Any]:
    """The plain Python (JSON) form of a payload."""
    return {key: read_value(value) for key, value in fields.items()}


def write_value(value: Any, into: pb.Value) -> None:
    """Put a plain JSON value into a protobuf Value."""
    if isinstance(value, str):
        into.string_value = value
    elif isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, int):
        if -(2**63) <= value < 2**63:
            into.integer_value = value
        else:  # Qdrant's protobuf has no unsigned kind either: its server gives such numbers as doubles
            into.double_value = float(value)
    elif isinstance(value, float):
        into.double_value = value
    elif value is None:
        into.null_value = pb.NULL_VALUE
    elif isinstance(value, dict):
        into.struct_value.SetInParent()
        write_payload(value, into.struct_value.fields)
    else:
        into.list_value.SetInParent()
        for item in value:
            write_value(item, into.list_value.values.add())


def write_payload(payload: Mapping[str, Any] | None, fields: Any) -> None:
    """Fill a protobuf map<string, Value> from a plain payload."""
    for key, value in (payload or {}).items():
        write_value(value, fields[key])


def read_sparse(indices: Iterable[int], values: Iterable[float]) -> Any:
    """An engine's sparse vector; raises WrongInput when the lengths differ or an index repeats."""
    places, weights = list(indices), list(values)
    if len(places) != len(weights):
        raise WrongInput(f"Sparse vector has {len(places)} indices and {len(weights)} values; give as many of each")
    if len(set(places)) != len(places):
        raise WrongInput("Validation error in sparse vector: indices must be unique")
    return edge.SparseVector(places, weights)


def read_multi(multi: pb.MultiDenseVector) -> list[list[float]]:
    """The rows of a multi-vector; raises WrongInput when there is none, or rows differ in length."""
    rows = [list(row.data) for row in multi.vectors]
    if not rows:
        raise WrongInput("MultiDenseVector must not be empty")
    if len({len(row) for row in rows}) != 1:
        raise WrongInput("All vectors must have the same dimension")
    return rows


def read_vector(vector: pb.Vector | pb.VectorInput) -> Any:
    """What the engine takes for one vector: list (dim,), list of lists (rows, dim), or SparseVector.

    Raises Unsupported for text, images and objects: the embedded engine runs no inference.
    """
    kind = vector.WhichOneof("vector") if isinstance(vector, pb.Vector) else vector.WhichOneof("variant")
    if kind == "dense":
        return read_dense(vector.dense).tolist()
    if kind == "sparse":
        return read_sparse(vector.sparse.indices, vector.sparse.values)
    if kind == "multi_dense":
        return read_multi(vector.multi_dense)
    if kind is None and isinstance(vector, pb.Vector):
        return _read_legacy(vector)
    if kind in {"document", "image", "object"}:
        raise Unsupported(f"inference ({kind} given instead of a vector); encode it before you send it")
    raise WrongInput("No vector given where one is needed")


def _read_legacy(vector: pb.Vector) -> Any:
    """The form of clients before 1.16: flat data, with indices (sparse) or a count of rows (multi) beside it."""
    data = list(vector.data)
    if vector.HasField("indices"):
        return read_sparse(vector.indices.data, data)
    if not vector.HasField("vectors_count"):
        return data
    rows = vector.vectors_count
    if rows == 0 or len(data) % rows:
        raise WrongInput(f"Multi-vector of {len(data)} numbers cannot be cut into {rows} vectors of one size")
    width = len(data) // rows
    return [data[start : start + width] for start in range(0, len(data), width)]


def read_vectors(vectors: pb.Vectors) -> Any:
    """What the engine takes for a point: one vector, or a dict of name to vector ({} for none)."""
    kind = vectors.WhichOneof("vectors_options")
    if kind == "vector":
        return read_vector(vectors.vector)
    return {name: read_vector(vector) for name, vector in vectors.vectors.vectors.items()}


def _write_vector(vector: Any, into: pb.VectorOutput) -> None:
    if isinstance(vector, edge.SparseVector):
        into.sparse.indices.extend(vector.indices)
        into.sparse.values.extend(vector.values)
        into.sparse.SetInParent()
    elif vector and isinstance(vector[0], list):
        for row in vector:
            into.multi_dense.vectors.add().data.extend(row)
    else:
        # As bytes, since number by number they take longer than the engine does.
        into.dense.MergeFromString(encode_field(1, struct.pack(f"<{len(vector)}f", *vector)))


def write_vectors(vectors: Any, into: pb.VectorsOutput) -> None:
    """Fill the protobuf of a point's vectors from what the engine gave (a vector, or a dict of them)."""
    if isinstance(vectors, dict):
        into.vectors.SetInParent()
        for name, vector in vectors.items():
            _write_vector(vector, into.vectors.vectors[name])
    else:
        _write_vector(vectors, into.vector)


def read_payload_selector(selector: pb.WithPayloadSelector) -> Any:
    """The engine's with_payload: a bool, a list of keys, or a selector that leaves keys out."""
    kind = selector.WhichOneof("selector_options")
    if kind == "include":
        return list(selector.include.fields)
    if kind == "exclude":
        return edge.PayloadSelector.Exclude(list(selector.exclude.fields))
    return bool(selector.enable)


def read_vectors_selector(selector: pb.WithVectorsSelector) -> bool | list[str]:
    """The engine's with_vector: a bool, or the names wanted."""
    if selector.WhichOneof("selector_options") == "include":
        return list(selector.include.names)
    return bool(selector.enable)


def given(message: Message, field: str) -> Any:
    """The value of an optional field, or None when it was not sent."""
    return getattr(message, field) if message.HasField(field) else None
