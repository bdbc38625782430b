"""Plain searches of a REST request, and the hits of its answer; the rules are those of searching.py and hits.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from ..dialect import Edit, MalformedError, Operation, ScoreSlot, VectorSlot
from ..json_spans import EVERYTHING, Value, Wanted, is_true, read_number, replace_spans, scan_json
from ..reading import Asking, Hit, Search, fill_slot
from .message import QdrantMessage

_DEFAULTS: Final[Mapping[str, int]] = {"Search": 0, "SearchBatch": 0, "Query": 10, "QueryBatch": 10}
_SELECTORS: Final = ("with_payload", "with_vector", "with_vectors")
_ITEM: Final[dict[str, Wanted]] = dict.fromkeys(
    ("vector", "query", "prefetch", "limit", "top", "offset", "score_threshold", "filter", *_SELECTORS), EVERYTHING
)
_HIT: Final[dict[str, Wanted]] = {"id": EVERYTHING, "score": EVERYTHING}
_ANSWER: Final[dict[str, Wanted]] = {"result": {**_HIT, "points": _HIT}}


def find_searches(operation: Operation, request: QdrantMessage) -> Sequence[Search] | None:
    """The searches of a request that consists of nothing but plain ones, each with its slot of the request."""
    default = _DEFAULTS.get(operation.name)
    if default is None:
        return None
    body, slots = request.body, iter(request.slots)
    searches = []
    for index, item in enumerate(_read_items(operation, body)):
        slot = next(slots, None) if _is_plain(body, item.members) else None
        if slot is None or isinstance(slot, ScoreSlot) or (isinstance(slot, VectorSlot) and len(slot.rows) != 1):
            return None
        threshold = read_number(body, item.members.get("score_threshold"))
        if threshold is not None and not isinstance(next(slots, None), ScoreSlot):
            return None
        limit = _read_count(body, item.members.get("limit") or item.members.get("top"), default)
        offset = _read_count(body, item.members.get("offset"), 0)
        if limit is None or offset is None:
            return None
        payload, vectors = (_selects(body, item, names) for names in (_SELECTORS[:1], _SELECTORS[1:]))
        searches.append(Search(slot, limit, offset, threshold, payload, vectors, index))
    return searches if next(slots, None) is None and all(one.limit for one in searches) else None


def _read_items(operation: Operation, body: bytes) -> list[Value]:
    batch = operation.name.endswith("Batch")
    root = scan_json(body, {"searches": _ITEM} if batch else _ITEM)
    if not batch:
        return [root]
    searches = root.members.get("searches")
    return [] if searches is None else searches.elements


def _is_plain(body: bytes, members: Mapping[str, Value]) -> bool:
    """Whether a search asks for the points nearest to one dense vector or text, and nothing else."""
    if _given(body, members.get("prefetch")):
        return False
    asked = members.get("query") or members.get("vector")
    if asked is None:
        return False
    if asked.kind == "object":
        asked = asked.members.get("nearest") or asked.members.get("vector") or asked
        if asked.kind == "object" and "text" not in asked.members:
            return False
        # Beside `nearest` there may be a diversity (mmr), which is another search.
        if (query := members.get("query")) is not None and "nearest" in query.members and len(query.members) > 1:
            return not _given(body, query.members.get("mmr"))
    return asked.kind in ("numbers", "object")


def _given(body: bytes, value: Value | None) -> bool:
    """Whether there is a value that is neither null nor an empty list."""
    return (
        value is not None
        and body[value.start : value.end] != b"null"
        and (value.kind != "numbers" or value.numbers is None or value.numbers.size > 0)
    )


def _read_count(body: bytes, value: Value | None, default: int) -> int | None:
    """A number of hits; None where it is not one, which the database will say."""
    if not _given(body, value):
        return default
    number = read_number(body, value)
    return int(number) if number is not None and number >= 0 and number == int(number) else None


def _selects(body: bytes, item: Value, names: Sequence[str]) -> bool:
    chosen = (item.members.get(name) for name in names)
    return any(value is not None and (is_true(body, value) or value.kind in ("array", "object")) for value in chosen)


def form_searches(operation: Operation, request: QdrantMessage, asked: Sequence[tuple[Search, Asking]]) -> bytes:
    """The request with its searches asked otherwise; those that are not given are left out."""
    edits: list[Edit] = [fill_slot(search.slot, asking.vector) for search, asking in asked]
    body = request.edited(edits)
    wanted = {search.place: asking for search, asking in asked}
    items = _read_items(operation, body)
    texts = [_write_item(body, item, wanted[index]) for index, item in enumerate(items) if index in wanted]
    if not operation.name.endswith("Batch"):
        return body[: items[0].start] + texts[0] + body[items[0].end :]
    searches = scan_json(body, {"searches": EVERYTHING}).members["searches"]
    return replace_spans(body, [(searches.start, searches.end, b"[" + b",".join(texts) + b"]")])


def _write_item(body: bytes, item: Value, asking: Asking) -> bytes:
    """The text of a search asked otherwise: what stands there is replaced, what does not is added at its end."""
    changed: dict[str, Any] = {"top" if "top" in item.members else "limit": asking.limit}
    changed |= {name: None for name in ("offset", "score_threshold") if name in item.members}
    if asking.bare:
        changed |= {name: False for name in _SELECTORS if name in item.members}
    if asking.among is not None:
        must: list[Any] = [{"has_id": list(asking.among)}]
        kept = item.members.get("filter")
        if asking.narrow and kept is not None and _given(body, kept):
            must.append(orjson.Fragment(body[kept.start : kept.end]))
        changed["filter"] = {"must": must}
    replaced, added = [], b""
    for name, value in changed.items():
        place, text = item.members.get(name), orjson.dumps(value)
        if place is not None:
            replaced.append((place.start - item.start, place.end - item.start, text))
        else:
            added += b"," + orjson.dumps(name) + b":" + text
    end = item.end - item.start - 1
    return replace_spans(body[item.start : item.end], [*replaced, (end, end, added)])


def read_hits(operation: Operation, body: bytes) -> list[list[Hit]]:
    """The hits of an answer, search by search. Raises MalformedError."""
    return [[_read_hit(body, hit) for hit in one.elements] for one in _read_lists(operation, body)]


def _read_lists(operation: Operation, body: bytes) -> list[Value]:
    """The list of hits of each search."""
    result = scan_json(body, _ANSWER).members.get("result")
    if result is None:
        raise MalformedError("the answer has no result")
    answers = result.elements if operation.name.endswith("Batch") else [result]
    lists = [answer.members.get("points") if answer.kind == "object" else answer for answer in answers]
    return [one for one in lists if one is not None and one.kind in ("array", "numbers")]


def _read_hit(body: bytes, value: Value) -> Hit:
    identity, score = value.members.get("id"), read_number(body, value.members.get("score"))
    if identity is None or score is None:
        raise MalformedError(f"the hit at byte {value.start} has no id or no score")
    return Hit(orjson.loads(body[identity.start : identity.end]), score, body[value.start : value.end])


def form_hits(operation: Operation, body: bytes, hits: Sequence[Sequence[Hit]]) -> bytes:
    """The answer with these hits in place of its own."""
    lists = _read_lists(operation, body)
    texts = (b"[" + b",".join(map(_with_score, one)) + b"]" for one in hits)
    return replace_spans(body, [(old.start, old.end, text) for old, text in zip(lists, texts, strict=True)])


def _with_score(hit: Hit) -> bytes:
    score = scan_json(hit.raw, _HIT).members["score"]
    if read_number(hit.raw, score) == hit.score:
        return hit.raw
    return replace_spans(hit.raw, [(score.start, score.end, orjson.dumps(hit.score))])
