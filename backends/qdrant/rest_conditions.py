"""A filter by which a REST write names its points: how they are listed, and how the write is held to some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson

from ..dialect import MalformedError
from ..index import PointId
from ..json_spans import Value
from ..writing import ConditionSlot, Listed

NOTHING_DELETED: Final = b'{"filter":{"must":[{"has_id":[]}]}}'


@dataclass(frozen=True, slots=True)
class RestFilterPlace:
    """A filter with its `must` in it, and the shard keys to which its write is confined."""

    filter: Value
    shard_key: Value | None


def read_ids(body: bytes, value: Value | None) -> list[PointId]:
    """The ids in a list, or the one that stands in its place; what is neither number nor string is none."""
    if value is None or value.kind == "object":
        return []
    parsed = orjson.loads(body[value.start : value.end])
    listed = parsed if isinstance(parsed, list) else [parsed]
    return [one for one in listed if isinstance(one, int | str) and not isinstance(one, bool)]


def hold_json_filter(body: bytes, slot: ConditionSlot, ids: Sequence[PointId]) -> list[tuple[int, int, bytes]]:
    """What adds `must: has_id` to a filter, as (start, end, new): it then names none but these points."""
    place = slot.place
    assert isinstance(place, RestFilterPlace)
    only = orjson.dumps({"has_id": list(ids)})
    whole, must = place.filter, place.filter.members.get("must")
    if must is None:
        return [(whole.start + 1, whole.start + 1, b'"must":[' + only + b"]" + _comma(body, whole))]
    if must.kind == "scalar":  # null
        return [(must.start, must.end, b"[" + only + b"]")]
    if must.kind == "object":
        return [(must.start, must.start, b"[" + only + b","), (must.end, must.end, b"]")]
    return [(must.start + 1, must.start + 1, only + _comma(body, must))]


def _comma(body: bytes, value: Value) -> bytes:
    """What has to stand between a first element and those that an object or list has."""
    return b"," if body[value.start + 1 : value.end - 1].strip() else b""


def scroll(body: bytes, place: RestFilterPlace, after: PointId | None, limit: int) -> bytes:
    """The scroll request that lists a page of a filter's points, ids alone."""
    settings: dict[str, object] = {"limit": limit, "with_payload": False, "with_vector": False}
    if after is not None:
        settings["offset"] = after
    parts = [b'"filter":', body[place.filter.start : place.filter.end], b",", orjson.dumps(settings)[1:]]
    if place.shard_key is not None:
        parts = [b'"shard_key":', body[place.shard_key.start : place.shard_key.end], b",", *parts]
    return b"{" + b"".join(parts)


def read_scrolled(answer: bytes) -> Listed:
    """The ids of a scroll's answer, and where the next page begins. Raises MalformedError."""
    try:
        result = orjson.loads(answer)["result"]
        return Listed([point["id"] for point in result["points"]], result.get("next_page_offset"))
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise MalformedError(f"this is no answer to a scroll: {error}") from error
