"""The lengths of vectors in REST's descriptions of a collection, v2 and v1."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..dialect import DimSlot
from ..json_spans import EVERYTHING, Value, read_string, replace_spans, scan_json

Place = tuple[int, int, str]
"""Where the value of a length stands, and how one is written there."""

_WANTED = {"data": {"fields": {"name": EVERYTHING, "type": EVERYTHING, "params": EVERYTHING}}}
_DENSE = ("FloatVector", "Float16Vector", "BFloat16Vector", "Int8Vector")
_match_typed = re.compile(rf"({'|'.join(_DENSE)})\((\d+)\)").fullmatch  # v1 tells type and length in one


def find_rest_dims(body: bytes, collections: Sequence[str]) -> list[DimSlot]:
    """v2: data.fields[].params of key dim; v1: data.fields[].type "FloatVector(384)"."""
    data = scan_json(body, _WANTED).members.get("data")
    fields = data.members.get("fields") if data is not None else None
    if fields is None:
        return []
    return [slot for field in fields.elements for slot in _find_dims(body, field, collections[0])]


def _find_dims(body: bytes, field: Value, collection: str) -> Iterator[DimSlot]:
    name, kind = read_string(body, field.members.get("name")), read_string(body, field.members.get("type")) or ""
    typed = _match_typed(kind)
    if typed is not None:
        value = field.members["type"]
        yield DimSlot(collection, name, int(typed[2]), (value.start, value.end, f'"{typed[1]}(%d)"'))
    if kind not in _DENSE or "params" not in field.members:
        return
    for pair in field.members["params"].elements:
        dim = pair.members.get("value")
        if read_string(body, pair.members.get("key")) != "dim" or dim is None:
            continue
        text = body[dim.start : dim.end].strip(b'"')
        if text.isdigit():
            form = '"%d"' if dim.kind == "string" else "%d"
            yield DimSlot(collection, name, int(text), (dim.start, dim.end, form))


def write_rest_dims(body: bytes, edits: Sequence[tuple[DimSlot, int]]) -> bytes:
    """The description with other lengths and everything else untouched."""
    replacements = []
    for slot, dim in edits:
        place: Place = slot.place  # type: ignore[assignment]  # this codec's own address
        start, end, form = place
        if dim != slot.dim:
            replacements.append((start, end, (form % dim).encode()))
    return replace_spans(body, replacements)
