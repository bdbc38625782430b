"""Slots of a JSON message: how Milvus's vector forms are read, and how edits go back in."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import orjson

from ..dialect import Edit, Float32, Role, Schema, ScoreSlot, Slot, TextSlot, VectorSlot
from ..json_spans import Value, read_number, read_string, splice_spans, write_floats
from ..pieces import Pieces
from ..rows import check_rows
from .forms import SIZES, read_form, write_form

_BYTES: Final = ("float16", "bfloat16")  # forms that may be written as base64


@dataclass(frozen=True, slots=True)
class RestPlace:
    """Where a value stands, how its numbers are stored, and whether they are written as base64."""

    start: int
    end: int
    form: str
    encoded: bool = False


@dataclass(slots=True)
class RestReader:
    """Gathers the slots of one JSON message."""

    body: bytes
    collection: str
    role: Role
    schema: Schema | None
    slots: list[Slot] = field(default_factory=list)

    def add_vector(self, value: Value | None, name: str, form: str, model: str = "") -> bool:
        """The slot of one vector, a list of numbers or, of half precision, a base64 string; says whether it is one."""
        if value is None:
            return False
        encoded = value.kind == "string"
        row = self._decode(value, form) if encoded else value.numbers
        if row is None or row.size == 0:
            return False
        place = RestPlace(value.start, value.end, form, encoded)
        self.slots.append(VectorSlot(self.collection, name, self.role, row.reshape(1, -1), model or None, place))
        return True

    def _decode(self, value: Value, form: str) -> Float32 | None:
        text = read_string(self.body, value)
        if form not in _BYTES or text is None:
            return None
        try:
            data = b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return None
        return None if len(data) % SIZES[form] else read_form(form, data)

    def add_query(self, value: Value, name: str, form: str, model: str) -> None:
        """The slot of one query: a vector, or a text, which is any other string."""
        if not self.add_vector(value, name, form, model) and value.kind == "string":
            text = read_string(self.body, value)
            assert text is not None  # it is a string
            place = RestPlace(value.start, value.end, "float")
            self.slots.append(TextSlot(self.collection, name, self.role, text, model, place))

    def add_score(self, value: Value | None, name: str) -> None:
        """The slot of a bound, if the value is a number."""
        score = read_number(self.body, value)
        if score is not None and value is not None:
            self.slots.append(ScoreSlot(self.collection, name, score, RestPlace(value.start, value.end, "float")))


def edit_rest(body: bytes, edits: Sequence[Edit]) -> Pieces:
    """The pieces of a JSON message with its slots replaced.

    Values that an edit does not change keep their digits. Raises ValueError for rows that do not fit their slot and
    for numbers that JSON cannot hold.
    """
    replacements: list[tuple[int, int, bytes]] = []
    for slot, value in edits:
        place = slot.place
        assert isinstance(place, RestPlace)
        if isinstance(slot, ScoreSlot):
            if slot.score != value:
                replacements.append((place.start, place.end, orjson.dumps(float(value))))
            continue
        rows = np.asarray(value, dtype=np.float32)
        check_rows(slot, rows)
        if not isinstance(slot, VectorSlot) or not np.array_equal(slot.rows, rows):
            replacements.append((place.start, place.end, _write(place, rows[0])))
    return splice_spans(body, replacements)


def _write(place: RestPlace, row: Float32) -> bytes:
    if place.encoded:
        return b'"' + b64encode(write_form(place.form, row)) + b'"'
    if place.form == "int8":
        return orjson.dumps(np.frombuffer(write_form("int8", row), np.int8).tolist())
    return write_floats(row)
