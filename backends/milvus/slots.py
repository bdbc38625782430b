"""Slots of a gRPC message: where vectors, texts and scores stand, and how edits go back in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from ..dialect import Edit, Float32, Role, ScoreSlot, Slot, TextSlot, VectorSlot
from ..pieces import Pieces
from ..rows import check_rows
from ..wire import Patch, Span, encode_varint, patch_floats, splice
from .forms import write_form

_FLOAT_PLACEHOLDER = encode_varint(101)


@dataclass(frozen=True, slots=True)
class ColumnPlace:
    """All rows of a column end to end, in one field: repeated floats, or bytes; and the length told beside them."""

    form: str
    data: tuple[Span, ...]  # empty where no row has a vector
    dim: Span


@dataclass(frozen=True, slots=True)
class QueryPlace:
    """The query vectors of a placeholder: a bytes field each."""

    form: str
    values: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class TextPlace:
    """A query text, and the placeholder's type, which says that its values are texts."""

    value: Span
    type: Span


@dataclass(frozen=True, slots=True)
class NumberPlace:
    """A number that is written as text, within a string field."""

    start: int
    end: int
    around: Span


@dataclass(slots=True)
class GrpcReader:
    """Gathers the slots of one gRPC message."""

    body: bytes
    collection: str
    role: Role
    slots: list[Slot]
    unsettled: bool = False


def edit_grpc(body: bytes, edits: Sequence[Edit], beside: Sequence[Patch] = ()) -> Pieces:
    """The pieces of the body of a gRPC message with its slots replaced, and what else is to be patched.

    Raises ValueError for rows that do not fit their slot.
    """
    patches: dict[int, Patch] = {patch[0]: patch for patch in beside}  # texts of one placeholder share its type
    for edit in edits:
        for patch in _patch(body, edit):
            patches[patch[0]] = patch
    return splice(body, list(patches.values()))


def _patch(body: bytes, edit: Edit) -> Sequence[Patch]:
    slot, new = edit
    place = slot.place
    if isinstance(slot, ScoreSlot):
        assert isinstance(place, NumberPlace)
        return () if slot.score == new else [(place.start, place.end, orjson.dumps(float(new)), place.around)]
    rows = np.asarray(new, dtype=np.float32)
    check_rows(slot, rows)
    if isinstance(slot, TextSlot):
        assert isinstance(place, TextPlace)
        kind, value = place.type, place.value
        return (
            (kind[2], kind[3], _FLOAT_PLACEHOLDER, kind[4]),
            (value[2], value[3], write_form("float", rows), value),
        )
    if isinstance(place, QueryPlace):
        return [
            (value[2], value[3], write_form(place.form, row), value)
            for value, row in zip(place.values, rows, strict=True)
        ]
    assert isinstance(place, ColumnPlace)
    return _patch_column(body, slot, place, rows)


def _patch_column(body: bytes, slot: VectorSlot, place: ColumnPlace, rows: Float32) -> list[Patch]:
    patches: list[Patch] = []
    if place.data:
        data = write_form(place.form, rows)
        last = place.data[-1]
        patches = patch_floats(body, place.data, data) if place.form == "float" else [(last[2], last[3], data, last)]
    if rows.shape[1] != slot.rows.shape[1]:
        dim = place.dim
        patches.append((dim[2], dim[3], encode_varint(rows.shape[1]), dim[4]))
    return patches
