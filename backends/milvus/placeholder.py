"""The input of a search: a PlaceholderGroup, whose values are query vectors or texts, one for each query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..dialect import MalformedError, Schema, TextSlot, VectorSlot
from ..rows import frozen_stack
from ..wire import Span, path_of, read_uint, scan
from .forms import SIZES, read_form
from .schema import DENSE_TYPES, SHAPES, TEXT_TYPE
from .slots import GrpcReader, QueryPlace, TextPlace

_GROUP: Final = SHAPES["PlaceholderGroup"]
_VALUE: Final = SHAPES["PlaceholderValue"]


def add_queries(
    reader: GrpcReader, group: Sequence[Span], field: str | None, model: str | None, schema: Schema | None
) -> None:
    """The slots of a placeholder group; its other types (binary, sparse, lists of vectors) give none.

    A text is a slot where the schema says that its field holds dense vectors: in a full-text search it stays a text.
    """
    body = reader.body
    for placeholder in scan(body, group[-1:], _GROUP).get("placeholders", ()):
        found = scan(body, (placeholder,), _VALUE)
        values = tuple(found.get("values", ()))
        kind = read_uint(body, found, "type") or 0
        if not values:
            continue
        if kind in DENSE_TYPES:
            _add_vectors(reader, DENSE_TYPES[kind], values, field, model)
        elif kind == TEXT_TYPE and schema is None:
            reader.unsettled = True
        elif kind == TEXT_TYPE and schema is not None and field in schema.vectors:
            _add_texts(reader, values, found["type"][-1], field, model)


def _add_vectors(reader: GrpcReader, form: str, values: tuple[Span, ...], field: str | None, model: str | None) -> None:
    sizes = {value[3] - value[2] for value in values}
    size = sizes.pop()
    if sizes or size == 0 or size % SIZES[form]:
        return  # nothing that an adapter could map: the upstream will say what is wrong with it
    rows = [read_form(form, reader.body, value[2], value[3]) for value in values]
    stacked = rows[0].reshape(1, -1) if len(rows) == 1 else frozen_stack(rows)
    place = QueryPlace(form, values)
    reader.slots.append(VectorSlot(reader.collection, field, reader.role, stacked, model, place))


def _add_texts(reader: GrpcReader, values: tuple[Span, ...], kind: Span, field: str | None, model: str | None) -> None:
    for value in values:
        try:
            text = reader.body[value[2] : value[3]].decode()
        except UnicodeDecodeError as error:
            raise MalformedError(f"{path_of(value)}: the text is not UTF-8 at its byte {error.start}") from None
        place = TextPlace(value, kind)
        reader.slots.append(TextSlot(reader.collection, field, reader.role, text, model or "", place))
