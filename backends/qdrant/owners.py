"""Which points the vectors of a write belong to, in the order in which write.py and rest.py find them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from ..dialect import Operation, Role, VectorSlot
from ..index import PointId
from ..json_spans import EVERYTHING, Value, Wanted, scan_json
from ..wire import Shape, Span, compile_shapes, root_span, scan
from .conditions import read_id
from .message import QdrantMessage
from .rest_conditions import read_ids
from .rest_slots import RestReader
from .schema import SHAPES
from .wire_slots import WireReader
from .write import POINT_STRUCT, POINT_VECTORS, add_points

TABLE: Final = {"PointStruct": "id=1:PointId", "PointVectors": "id=1:PointId"}
_IDS = compile_shapes(TABLE)["PointStruct"]  # of both
_POINTS: Final[dict[str, Wanted]] = {
    "points": {"id": EVERYTHING, "vector": EVERYTHING},
    "batch": {"ids": EVERYTHING, "vectors": EVERYTHING},
}
_UPDATE: Final[dict[str, Wanted]] = {"operations": {"upsert": _POINTS, "update_vectors": _POINTS}}

Owners = Sequence[Sequence[PointId]]


def find_owners(operation: Operation, request: QdrantMessage) -> Owners:
    """For each slot of a write the id of its point; none for a multi-vector. Raises MalformedError."""
    if operation.transport == "grpc":
        return _read_wire(operation.name, request.body)
    return _read_rest(request.body)


def _read_wire(name: str, body: bytes) -> Owners:
    owners: list[Sequence[PointId]] = []
    for point, shape in _find_points(name, body):
        reader = WireReader(body, "", Role.DOCUMENT, [])
        add_points(reader, (point,), shape)
        if reader.slots:
            identity = read_id(body, scan(body, (point,), _IDS).get("id", ()))
            owners += [_owner(slot, identity) for slot in reader.slots]
    return owners


def _find_points(name: str, body: bytes) -> Iterator[tuple[Span, Shape]]:
    if name != "UpdateBatch":
        message = "UpsertPoints" if name == "Upsert" else "UpdatePointVectors"
        found = scan(body, (root_span(body, message),), SHAPES[message])
        shape = POINT_STRUCT if name == "Upsert" else POINT_VECTORS
        yield from ((point, shape) for point in found.get("points", ()))
        return
    found = scan(body, (root_span(body, "UpdateBatchPoints"),), SHAPES["UpdateBatchPoints"])
    for span in found.get("operations", ()):
        operation = scan(body, (span,), SHAPES["PointsUpdateOperation"])
        for part, list_name, shape in (
            ("upsert", "PointStructList", POINT_STRUCT),
            ("update_vectors", "UpdateVectors", POINT_VECTORS),
        ):
            if part in operation:
                listed = scan(body, operation[part], SHAPES[f"PointsUpdateOperation.{list_name}"])
                yield from ((point, shape) for point in listed.get("points", ()))


def _read_rest(body: bytes) -> Owners:
    root = scan_json(body, {**_POINTS, **_UPDATE})
    operations = root.members.get("operations")
    owners: list[Sequence[PointId]] = []
    if operations is None:
        _add_points(body, root, owners)
    else:
        for operation in operations.elements:
            for points in operation.members.values():
                _add_points(body, points, owners)
    return owners


def _add_points(body: bytes, value: Value, owners: list[Sequence[PointId]]) -> None:
    points = value.members.get("points")
    for point in points.elements if points is not None and points.kind == "array" else (points,) if points else ():
        reader = RestReader(body, "", Role.DOCUMENT, [])
        reader.add_vectors(point.members.get("vector"))
        ids = read_ids(body, point.members.get("id"))
        owners += [_owner(slot, ids[0] if ids else None) for slot in reader.slots]
    batch = value.members.get("batch")
    if batch is not None:
        _add_columns(body, batch, owners)


def _add_columns(body: bytes, batch: Value, owners: list[Sequence[PointId]]) -> None:
    ids = read_ids(body, batch.members.get("ids"))
    vectors = batch.members.get("vectors")
    columns = [] if vectors is None else [vectors] if vectors.kind != "object" else list(vectors.members.values())
    for column in columns:
        for row, vector in enumerate(column.elements):
            reader = RestReader(body, "", Role.DOCUMENT, [])
            reader.add_vector(vector, "")
            owners += [_owner(slot, ids[row] if row < len(ids) else None) for slot in reader.slots]


def _owner(slot: object, identity: PointId | None) -> Sequence[PointId]:
    single = not isinstance(slot, VectorSlot) or len(slot.rows) == 1
    return (identity,) if identity is not None and single else ()
