"""Slots of a JSON message: how Qdrant's vector forms are read, and how edits go back in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from ..dialect import Edit, Role, ScoreKind, ScoreSlot, Slot, TextSlot, VectorSlot
from ..json_spans import Value, read_number, read_string, splice_spans, write_floats
from ..pieces import Pieces
from ..rows import check_rows, frozen_stack

Place = tuple[tuple[int, int], ...]
"""Where the value of each row stands (one for a text or a score)."""


@dataclass(slots=True)
class RestReader:
    """Gathers the slots of one JSON message."""

    body: bytes
    collection: str
    role: Role
    slots: list[Slot]

    def add_vector(self, value: Value | None, field: str) -> bool:
        """The slot of one vector in any of its forms, if it is dense, multi-dense or a text.

        Returns whether it is compared in a dense space that a client can know: not when it is sparse, nor when the
        database makes it from an image or an object; a point id is.
        """
        if value is None:
            return True
        if value.kind == "numbers":
            self._add_rows((value,), field)
        elif value.kind == "array":
            self._add_rows(value.elements, field)
        elif value.kind == "object":
            return self._add_object(value, field)
        return True

    def _add_rows(self, values: Sequence[Value], field: str) -> None:
        rows = [value.numbers for value in values if value.numbers is not None]
        if len(rows) == len(values) and rows[0].size and all(row.size == rows[0].size for row in rows):
            stacked = rows[0].reshape(1, -1) if len(rows) == 1 else frozen_stack(rows)
            place = tuple((value.start, value.end) for value in values)
            self.slots.append(VectorSlot(self.collection, field, self.role, stacked, None, place))

    def _add_object(self, value: Value, field: str) -> bool:
        members = value.members
        text, model = read_string(self.body, members.get("text")), read_string(self.body, members.get("model"))
        if text is None or model is None:
            return not members.keys() & {"indices", "image", "object"}
        place = ((value.start, value.end),)
        self.slots.append(TextSlot(self.collection, field, self.role, text, model, place))
        return True

    def add_vectors(self, value: Value | None) -> None:
        """A point's vectors: one for the default field, or an object of names."""
        if value is not None and value.kind == "object" and not is_single(value):
            for name, vector in value.members.items():
                self.add_vector(vector, name)
        else:
            self.add_vector(value, "")

    def add_columns(self, value: Value | None) -> None:
        """A batch's vectors: a list of them for the default field, or an object of such lists by name."""
        columns = {"": value} if value is None or value.kind != "object" else value.members
        for name, column in columns.items():
            if column is not None:
                for vector in column.elements:
                    self.add_vector(vector, name)

    def add_score(self, value: Value | None, field: str, kind: ScoreKind = "threshold") -> None:
        """The slot of a score, if the value is a number."""
        score = read_number(self.body, value)
        if score is not None and value is not None:
            self.slots.append(ScoreSlot(self.collection, field, score, ((value.start, value.end),), kind))


def is_single(value: Value) -> bool:
    """Whether an object is one vector (sparse, text, image, object) and not an object of vectors by name."""
    members = value.members
    if "model" in members and members["model"].kind == "string":
        return True
    return members.keys() == {"indices", "values"}


def edit_rest(body: bytes, edits: Sequence[Edit], beside: Sequence[tuple[int, int, bytes]] = ()) -> Pieces:
    """The pieces of a JSON message with its slots replaced, and `beside` them stretches (start, end, new).

    Values that an edit does not change keep their digits. Raises ValueError for rows that do not fit their slot and
    for numbers that JSON cannot hold.
    """
    replacements = list(beside)
    for slot, value in edits:
        place: Place = slot.place  # type: ignore[assignment]  # this codec's own address
        if isinstance(slot, ScoreSlot):
            if slot.score != value:
                replacements.append((*place[0], _write_score(slot, float(value))))
            continue
        rows = np.asarray(value)
        check_rows(slot, rows)
        if isinstance(slot, VectorSlot) and np.array_equal(slot.rows, rows):
            continue
        replacements += [(*span, write_floats(row)) for span, row in zip(place, rows, strict=True)]
    return splice_spans(body, replacements)


def _write_score(slot: ScoreSlot, score: float) -> bytes:
    if not math.isfinite(score):
        raise ValueError(
            f"collection {slot.collection!r}, field {slot.field!r}: {slot.score} cannot become {score}, "
            "which JSON does not have"
        )
    return orjson.dumps(score)
