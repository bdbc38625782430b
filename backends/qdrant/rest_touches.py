"""Which points a REST write names: every kind, by ids and by filter.

JSON that is valid but not of the expected shape names no points: the database will refuse it. Where it takes only one
of ids and filter and both are given, both count here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ..json_spans import EVERYTHING, Value, Wanted, scan_json
from ..writing import ConditionSlot, Step, Write
from .rest_conditions import RestFilterPlace, read_ids
from .touches import UNKNOWN_KIND

_LOOK: Final[dict[str, Wanted]] = {}  # note the value, and nothing below it
_NAMED: Final[dict[str, Wanted]] = {
    "points": {"id": _LOOK},
    "batch": {"ids": _LOOK},
    "filter": {"must": _LOOK},
    "shard_key": EVERYTHING,
}
_OPERATIONS: Final = (
    *("upsert", "delete", "set_payload", "overwrite_payload", "delete_payload", "clear_payload"),
    *("update_vectors", "delete_vectors"),
)


class _Operations(dict[str, Wanted]):
    """Every key of an operation is noted, so that one of a kind unknown here is seen."""

    def get(self, key: str, default: object = None) -> Wanted:
        return _NAMED


def read_points_write(name: str, body: bytes, collection: str, waits: bool) -> Write:
    """A write of points, by its operation's name. Raises MalformedError."""
    if name != "UpdateBatch":
        return Write("points", (collection,), [_read_step(body, scan_json(body, _NAMED))], waits)
    operations = scan_json(body, {"operations": _Operations()}).members.get("operations")
    found = list(_each(operations))
    if any(one.members.keys() - set(_OPERATIONS) for one in found):
        return Write("anything", (collection,), waits=waits, reason=UNKNOWN_KIND)
    steps = [_read_step(body, named) for one in found for named in one.members.values()]
    return Write("points", (collection,), steps, waits)


def _each(value: Value | None) -> Iterable[Value]:
    return value.elements if value is not None else ()


def _read_step(body: bytes, named: Value) -> Step:
    members = named.members
    points = members.get("points")
    if points is not None and any(one.kind == "object" for one in points.elements):
        ids = [identity for one in points.elements for identity in read_ids(body, one.members.get("id"))]
    else:
        ids = read_ids(body, points)
    if "batch" in members:
        ids += read_ids(body, members["batch"].members.get("ids"))
    filter_ = members.get("filter")
    if filter_ is None or filter_.kind != "object":
        return Step(ids)
    return Step(ids, ConditionSlot(RestFilterPlace(filter_, members.get("shard_key"))))
