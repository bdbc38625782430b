"""Slots of a gRPC message: how Qdrant's Vector, VectorInput and VectorOutput are read, and how edits go back in.

Vectors may stand in a oneof (dense, multi_dense, document, ...) or in the deprecated `data`, which is flat for
multi-vectors (`vectors_count`) and sparse beside `indices`. Each is written back in the form in which it came.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..dialect import Edit, Float32, Role, ScoreKind, ScoreSlot, Slot, TextSlot, VectorSlot
from ..pieces import Pieces
from ..rows import check_rows, frozen_stack
from ..wire import (
    CLEARED,
    Found,
    Patch,
    Shape,
    Span,
    encode_field,
    float_bytes,
    patch_floats,
    read_float,
    read_floats,
    read_text,
    read_uint,
    scan,
    splice,
)
from .schema import SHAPES

Rows = tuple[tuple[Span, ...], ...]
"""The float fields of a vector slot: one for all rows, or one a row."""

_DENSE = SHAPES["DenseVector"]
_MULTI_DENSE = SHAPES["MultiDenseVector"]
_DOCUMENT = SHAPES["Document"]
VECTOR = SHAPES["Vector"]
VECTOR_INPUT = SHAPES["VectorInput"]
VECTOR_OUTPUT = SHAPES["VectorOutput"]
_DENSE_NUMBERS = {id(VECTOR): 101, id(VECTOR_INPUT): 2}
_OPAQUE = ("sparse", "image", "object", "indices")


@dataclass(frozen=True, slots=True)
class TextPlace:
    """A oneof that holds a Document: all its members, in force or not, and the number of its `dense`."""

    document: Sequence[Span]
    cleared: Sequence[Span]
    dense: int


@dataclass(frozen=True, slots=True)
class ScorePlace:
    """A float field, or, where it is absent and therefore 0, the message that would hold it and its number."""

    span: Span
    absent: int | None = None


@dataclass(slots=True)
class WireReader:
    """Gathers the slots of one gRPC message."""

    body: bytes
    collection: str
    role: Role
    slots: list[Slot]

    def add_vector(self, spans: Sequence[Span], shape: Shape, field: str) -> bool:
        """The slot of a Vector, VectorInput or VectorOutput, if it holds dense vectors or a text.

        Returns whether it is compared in a dense space that a client can know: not when it is sparse, nor when the
        database makes it from an image or an object; a point id is.
        """
        body = self.body
        found = scan(body, spans, shape)
        if "dense" in found:
            self.add_floats(scan(body, found["dense"], _DENSE).get("data"), field)
        elif "multi_dense" in found:
            self._add_multi_dense(found["multi_dense"], field)
        elif "document" in found:
            self._add_document(found, _DENSE_NUMBERS[id(shape)], field)
        elif any(name in found for name in _OPAQUE):
            return False
        elif "data" in found:
            self.add_floats(found["data"], field, read_uint(body, found, "vectors_count"))
        return True

    def add_floats(self, spans: Sequence[Span] | None, field: str, count: int | None = None) -> None:
        """The slot of a float field that holds `count` vectors end to end (None: one)."""
        if spans is None:
            return
        flat = read_floats(self.body, spans)
        n = 1 if count is None else count
        if n == 0 or flat.size == 0 or flat.size % n:
            return  # nothing that an adapter could map: the upstream will say what is wrong with it
        self.slots.append(VectorSlot(self.collection, field, self.role, flat.reshape(n, -1), None, (tuple(spans),)))

    def _add_multi_dense(self, spans: Sequence[Span], field: str) -> None:
        vectors = scan(self.body, spans, _MULTI_DENSE).get("vectors", ())
        places: list[tuple[Span, ...]] = []
        rows: list[Float32] = []
        for vector in vectors:
            data = scan(self.body, (vector,), _DENSE).get("data")
            if data is None:
                return
            places.append(tuple(data))
            rows.append(read_floats(self.body, data))
        if rows and rows[0].size and all(row.size == rows[0].size for row in rows):
            place: Rows = tuple(places)
            self.slots.append(VectorSlot(self.collection, field, self.role, frozen_stack(rows), None, place))

    def _add_document(self, found: Found, dense: int, field: str) -> None:
        spans = found["document"]
        document = scan(self.body, spans, _DOCUMENT)
        text, model = read_text(self.body, document, "text"), read_text(self.body, document, "model")
        place = TextPlace(spans, found.get(CLEARED, ()), dense)
        self.slots.append(TextSlot(self.collection, field, self.role, text, model, place))

    def add_score(self, found: Found, name: str, field: str, kind: ScoreKind = "threshold") -> None:
        """The slot of an optional float field."""
        spans = found.get(name)
        if spans is not None:
            score = read_float(self.body, spans[-1])
            self.slots.append(ScoreSlot(self.collection, field, score, ScorePlace(spans[-1]), kind))


def edit_wire(body: bytes, edits: Sequence[Edit], beside: Sequence[Patch] = ()) -> Pieces:
    """The pieces of the body of a gRPC message with its slots replaced, and what else is to be patched.

    Raises ValueError for rows that do not fit their slot.
    """
    patches: list[Patch] = list(beside)
    for slot, value in edits:
        if isinstance(slot, ScoreSlot):
            patches += _patch_score(slot, float(value))
        elif isinstance(slot, VectorSlot):
            patches += _patch_vector(body, slot, np.asarray(value))
        else:
            patches += _patch_text(slot, np.asarray(value))
    return splice(body, patches)


def _patch_vector(body: bytes, slot: VectorSlot, rows: Float32) -> list[Patch]:
    check_rows(slot, rows)
    place: Rows = slot.place  # type: ignore[assignment]  # this codec's own address
    if len(place) == 1:
        return patch_floats(body, place[0], float_bytes(rows))
    return [
        patch for spans, row in zip(place, rows, strict=True) for patch in patch_floats(body, spans, float_bytes(row))
    ]


def _patch_text(slot: TextSlot, rows: Float32) -> list[Patch]:
    check_rows(slot, rows)
    place = slot.place
    assert isinstance(place, TextPlace)
    dense = encode_field(place.dense, encode_field(1, float_bytes(rows)))
    first, *rest = place.document
    removed: list[Patch] = [(span[0], span[3], b"", span[4]) for span in (*place.cleared, *rest)]
    return [(first[0], first[3], dense, first[4]), *removed]


def _patch_score(slot: ScoreSlot, score: float) -> list[Patch]:
    place = slot.place
    assert isinstance(place, ScorePlace)
    value = struct.pack("<f", score)
    _, _, start, end, _, _ = span = place.span
    if place.absent is None:
        return [(start, end, value, span[4])]
    if value == struct.pack("<f", slot.score):
        return []
    return [(end, end, bytes([place.absent << 3 | 5]) + value, span)]
