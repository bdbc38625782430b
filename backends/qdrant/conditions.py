"""A filter by which a gRPC write names its points: how they are listed, and how the write is held to some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ..index import PointId
from ..wire import (
    Found,
    Patch,
    Span,
    compile_shapes,
    encode_field,
    encode_varint,
    read_text,
    read_uint,
    root_span,
    scan,
)
from ..writing import ConditionSlot, Listed

TABLE: Final = {
    "PointId": "num=1:uint|point_id_options uuid=2:string|point_id_options",
    "ScrollResponse": "next_page_offset=1:PointId result=2:RetrievedPoint",
    "RetrievedPoint": "id=1:PointId",
}
_SHAPES = compile_shapes(TABLE)
_MUST, _HAS_ID = 2, 3  # of Filter and Condition
_NUMBER: Final = 8  # the tag of PointId.num
_NOTHING: Final = b"\x08\x00"  # a selector of payload or vectors that says `enable: false`


@dataclass(frozen=True, slots=True)
class FilterPlace:
    """The parts of a filter, and of the shard keys to which its write is confined."""

    parts: Sequence[Span]
    shard_keys: Sequence[Span]


def read_id(body: bytes, spans: Sequence[Span]) -> PointId | None:
    """A PointId; None for one of a kind unknown here."""
    if len(spans) == 1 and (number := _read_number(body, spans[0][2], spans[0][3])) is not None:
        return number
    found = scan(body, spans, _SHAPES["PointId"])
    if "num" in found:
        return read_uint(body, found, "num")
    return read_text(body, found, "uuid") if "uuid" in found else None


def _read_number(body: bytes, start: int, end: int) -> int | None:
    """A PointId that holds one number and nothing else, as most do; None for every other."""
    if not 2 <= end - start <= 10 or body[start] != _NUMBER:
        return None
    value = 0
    for place, byte in enumerate(body[start + 1 : end]):
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value if start + place + 2 == end else None
    return None


def read_ids(body: bytes, spans: Sequence[Span]) -> list[PointId]:
    """A list of PointId, without those of a kind unknown here."""
    read = (read_id(body, (span,)) for span in spans)
    return [one for one in read if one is not None]


def write_id(point: PointId) -> bytes:
    """The message PointId."""
    if isinstance(point, int):
        return b"\x08" + encode_varint(point)
    return encode_field(2, point.encode())


def has_id(ids: Sequence[PointId]) -> bytes:
    """The Condition that holds for these points."""
    return encode_field(_HAS_ID, b"".join(encode_field(1, write_id(point)) for point in ids))


def hold_filter(slot: ConditionSlot, ids: Sequence[PointId]) -> Patch:
    """The patch that adds `must: has_id` to a filter: whatever it says, it then names none but these points."""
    place = slot.place
    assert isinstance(place, FilterPlace)
    last = place.parts[-1]
    return (last[3], last[3], encode_field(_MUST, has_id(ids)), last)


def scroll(body: bytes, collection: str, place: FilterPlace, after: PointId | None, limit: int) -> bytes:
    """The ScrollPoints that lists a page of a filter's points, ids alone."""
    fields = [
        encode_field(1, collection.encode()),
        encode_field(2, _joined(body, place.parts)),
        b"" if after is None else encode_field(3, write_id(after)),
        b"\x20" + encode_varint(limit),
        encode_field(6, _NOTHING),
        encode_field(7, _NOTHING),
        encode_field(9, _joined(body, place.shard_keys)) if place.shard_keys else b"",
    ]
    return b"".join(fields)


def read_scrolled(answer: bytes) -> Listed:
    """The ids of a ScrollResponse, and where the next page begins. Raises MalformedError."""
    found: Found = scan(answer, (root_span(answer, "ScrollResponse"),), _SHAPES["ScrollResponse"])
    ids = []
    for span in found.get("result", ()):
        point = scan(answer, (span,), _SHAPES["RetrievedPoint"])
        identity = read_id(answer, point.get("id", ()))
        if identity is not None:
            ids.append(identity)
    after = read_id(answer, found["next_page_offset"]) if "next_page_offset" in found else None
    return Listed(ids, after)


def nothing_deleted(collection: str) -> bytes:
    """The DeletePoints that waits and deletes nothing."""
    selector = encode_field(2, encode_field(_MUST, has_id(())))
    return encode_field(1, collection.encode()) + b"\x10\x01" + encode_field(3, selector)


def _joined(body: bytes, parts: Sequence[Span]) -> bytes:
    return b"".join(body[part[2] : part[3]] for part in parts)
