"""Plain REST searches of one vector or text, and the hits of their answers; the rules are those of searching.py.

The answer to several vectors does not say where the hits of one end, so these are not taken apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from ..dialect import Edit, MalformedError, Schema
from ..json_spans import EVERYTHING, Value, read_number, read_string, replace_spans, scan_json
from ..reading import Asking, Hit, Search, fill_slot
from .expressions import read_key
from .message import MilvusMessage
from .searching import MOST_HITS, name_rows, split_slots, wants_vectors, widen_params

_OTHERWISE: Final = (
    "groupingField", "groupByField", "groupByFields", "groupSize", "strictGroupSize", "functionScore", "functionChains",
    "rerank", "highlighter", "ids", "orderByFields", "searchAggregation", "search",
)  # fmt: skip
_LIMIT: Final = 100  # where a request names none
_SCORE: Final = "distance"
_ID: Final = "id"  # what a row's key is called in answers of searches, whatever it is called in the collection


def find_searches(request: MilvusMessage, spare: int) -> Sequence[Search] | None:
    """The search of a request that is nothing but a plain one, of which `spare` more hits can be asked for."""
    body, schema, queries = request.body, request.schema, split_slots(request)
    if schema is None or not schema.key or len(queries) != 1:
        return None
    members = scan_json(body, EVERYTHING).members
    if any(_given(body, members.get(name)) for name in _OTHERWISE):
        return None
    limit, offset = _read_count(body, members.get("limit"), _LIMIT), _read_count(body, members.get("offset"), 0)
    if not limit or offset is None or limit + offset + spare > MOST_HITS:
        return None
    names = _read_names(body, members.get("outputFields"))
    return [Search(queries[0][0], limit, offset, None, bool(names), wants_vectors(names, schema), 0)]


def _given(body: bytes, value: Value | None) -> bool:
    """Whether there is a value that is neither null nor empty."""
    return value is not None and body[value.start : value.end] not in (b"null", b"[]", b'""', b"{}")


def _read_count(body: bytes, value: Value | None, default: int) -> int | None:
    """A number of hits; None where it is none, which Milvus will say."""
    number = read_number(body, value)
    if value is None or not _given(body, value):
        return default
    return int(number) if number is not None and number >= 0 and number == int(number) else None


def _read_names(body: bytes, value: Value | None) -> list[str]:
    return [] if value is None else [read_string(body, one) or "" for one in value.elements]


def form_searches(request: MilvusMessage, asked: Sequence[tuple[Search, Asking]]) -> bytes:
    """The request with its search asked otherwise: what stands there is replaced, what does not is added at its end."""
    schema, (search, asking) = request.schema, asked[0]
    assert schema is not None  # it has a search
    edits: list[Edit] = [fill_slot(search.slot, asking.vector)]
    body = request.edited(edits)
    root = scan_json(body, EVERYTHING)
    members = root.members
    changed: dict[str, Any] = {"limit": asking.limit, **({"offset": 0} if "offset" in members else {})}
    if asking.bare and "outputFields" in members:
        changed["outputFields"] = []
    if asking.among is not None:
        kept = read_string(body, members.get("filter")) or "" if asking.narrow else ""
        changed["filter"] = name_rows(kept, schema.key, asking.among)
        if "data" in members and "searchParams" not in members:  # the second version
            changed["searchParams"] = {"params": orjson.Fragment(widen_params(b"{}", asking))}
    replaced, added = [], b""
    for name, value in changed.items():
        place, text = members.get(name), orjson.dumps(value)
        if place is not None:
            replaced.append((place.start, place.end, text))
        else:
            added += b"," + orjson.dumps(name) + b":" + text
    replaced += _widen(body, members, asking)
    return replace_spans(body, [*replaced, (root.end - 1, root.end - 1, added)])


def _widen(body: bytes, members: Mapping[str, Value], asking: Asking) -> list[tuple[int, int, bytes]]:
    levels = [members[name] for name in ("searchParams", "params") if name in members]
    return [(one.start, one.end, widen_params(body[one.start : one.end], asking)) for one in levels]


def read_hits(body: bytes, schema: Schema | None) -> list[list[Hit]]:
    """The hits of an answer; a hit's `raw` is its row. Raises MalformedError."""
    data = scan_json(body, {"data": EVERYTHING}).members.get("data")
    if data is None or data.kind not in ("array", "numbers"):
        raise MalformedError("the answer has no data")
    return [[_read_hit(body, row, schema) for row in data.elements]]


def _read_hit(body: bytes, row: Value, schema: Schema | None) -> Hit:
    score = read_number(body, row.members.get(_SCORE))
    key = row.members.get(schema.key if schema is not None else _ID) or row.members.get(_ID)
    if key is None or score is None or schema is None:
        raise MalformedError(f"the row at byte {row.start} has no key or no distance")
    identity = read_key(orjson.loads(body[key.start : key.end]), text_ids=schema.text_ids)
    if identity is None:
        raise MalformedError(f"the row at byte {row.start}: {body[key.start : key.end][:50]!r} is no key")
    return Hit(identity, score, body[row.start : row.end])


def form_hits(body: bytes, hits: Sequence[Hit]) -> bytes:
    """The answer with these hits in place of its own."""
    members = scan_json(body, {"data": EVERYTHING, "topks": EVERYTHING}).members
    text = b"[" + b",".join(map(_with_score, hits)) + b"]"
    replaced = [(members["data"].start, members["data"].end, text)]
    if "topks" in members:
        replaced.append((members["topks"].start, members["topks"].end, b"[%d]" % len(hits)))
    return replace_spans(body, replaced)


def _with_score(hit: Hit) -> bytes:
    score = scan_json(hit.raw, {_SCORE: EVERYTHING}).members[_SCORE]
    if read_number(hit.raw, score) == hit.score:
        return hit.raw
    return replace_spans(hit.raw, [(score.start, score.end, orjson.dumps(hit.score))])
