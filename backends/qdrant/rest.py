"""REST requests and answers. The rules are those of search.py; here they are read from JSON.

JSON that is valid but not of the expected shape gives no slot: the upstream will say what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from ..dialect import MalformedError, Role
from ..json_spans import EVERYTHING, Value, Wanted, is_true, read_string, scan_json
from .message import QdrantMessage
from .rest_slots import RestReader, edit_rest
from .search import MAX_DEPTH

RestRequestReader = Callable[[bytes, str], QdrantMessage]
Add = Callable[[RestReader, Value], None]

_AVERAGE: Final = "average_vector"
_SELECTORS: Final = {"with_vector": EVERYTHING, "with_vectors": EVERYTHING, "with_lookup": EVERYTHING}
_LEVEL: Final[dict[str, Wanted]] = {"query": EVERYTHING, "using": EVERYTHING, "score_threshold": EVERYTHING}
_LEVEL["prefetch"] = _LEVEL
_POINTS: Final = {"points": {"vector": EVERYTHING}, "batch": {"vectors": EVERYTHING}}
_UPDATE: Final = {"operations": {"upsert": _POINTS, "update_vectors": _POINTS}}
_QUERY: Final = {**_LEVEL, **_SELECTORS}
_SEARCH: Final = {"vector": EVERYTHING, "score_threshold": EVERYTHING, **_SELECTORS}
_RECOMMEND: Final[dict[str, Wanted]] = {
    **dict.fromkeys(("positive", "negative", "using", "strategy", "score_threshold"), EVERYTHING),
    **_SELECTORS,
}
_DISCOVER: Final[dict[str, Wanted]] = {**dict.fromkeys(("target", "context", "using"), EVERYTHING), **_SELECTORS}
_HITS: Final[dict[str, Wanted]] = {"vector": EVERYTHING}
_RESULT: Final = {"vector": EVERYTHING, "points": _HITS, "groups": {"hits": _HITS, "lookup": _HITS}}


def _each(value: Value | None) -> Iterable[Value]:
    """The elements of a list, or the one thing that stands in its place."""
    if value is None:
        return ()
    return value.elements if value.kind == "array" else (value,)


def _read(wanted: Wanted, role: Role, add: Add, body: bytes, collection: str) -> QdrantMessage:
    reader = RestReader(body, collection, role, [])
    root = scan_json(body, wanted)
    add(reader, root)
    lookup, lookup_vectors = _read_lookup(body, root)
    wants = lookup_vectors or any(_selects_vectors(body, item) for item in (root, *_each(root.members.get("searches"))))
    return QdrantMessage(body, (collection,), reader.slots, wants, lookup, edit_rest)


def _selects_vectors(body: bytes, value: Value) -> bool:
    selectors = (value.members.get("with_vector"), value.members.get("with_vectors"))
    return any(is_true(body, selector) or (selector is not None and bool(selector.elements)) for selector in selectors)


def _read_lookup(body: bytes, root: Value) -> tuple[str | None, bool]:
    lookup = root.members.get("with_lookup")
    if lookup is None or lookup.kind == "scalar":
        return None, False
    if lookup.kind == "string":
        return read_string(body, lookup), False
    return read_string(body, lookup.members.get("collection")), _selects_vectors(body, lookup)


def _reader(wanted: Wanted, role: Role, add: Add) -> RestRequestReader:
    def read(body: bytes, collection: str) -> QdrantMessage:
        return _read(wanted, role, add, body, collection)

    return read


def _batch_reader(wanted: Wanted, add: Add) -> RestRequestReader:
    def add_all(reader: RestReader, root: Value) -> None:
        for request in _each(root.members.get("searches")):
            add(reader, request)

    return _reader({"searches": wanted}, Role.QUERY, add_all)


def _add_points(reader: RestReader, value: Value) -> None:
    for point in _each(value.members.get("points")):
        reader.add_vectors(point.members.get("vector"))
    batch = value.members.get("batch")
    if batch is not None:
        reader.add_columns(batch.members.get("vectors"))


def _add_operations(reader: RestReader, value: Value) -> None:
    for operation in _each(value.members.get("operations")):
        for points in operation.members.values():
            _add_points(reader, points)


def _add_nothing(reader: RestReader, value: Value) -> None:
    """Requests that name points, not vectors."""


def _field(reader: RestReader, value: Value) -> str:
    return read_string(reader.body, value.members.get("using")) or ""


def _add_search(reader: RestReader, value: Value) -> None:
    vector = value.members.get("vector")
    field = ""
    if vector is not None and vector.kind == "object":
        field = read_string(reader.body, vector.members.get("name")) or ""
        vector = vector.members.get("vector")
    if reader.add_vector(vector, field):
        reader.add_score(value.members.get("score_threshold"), field)


def _add_examples(reader: RestReader, value: Value, field: str) -> bool:
    """The vectors of positive and negative; whether results are scored in the space of the field."""
    dense = [
        reader.add_vector(example, field)
        for name in ("positive", "negative")
        if name in value.members
        for example in value.members[name].elements
    ]
    return all(dense) and (read_string(reader.body, value.members.get("strategy")) or _AVERAGE) == _AVERAGE


def _add_recommend(reader: RestReader, value: Value) -> None:
    field = _field(reader, value)
    if _add_examples(reader, value, field):
        reader.add_score(value.members.get("score_threshold"), field)


def _add_discover(reader: RestReader, value: Value) -> None:
    field = _field(reader, value)
    reader.add_vector(value.members.get("target"), field)
    _add_context(reader, value.members.get("context"), field)


def _add_context(reader: RestReader, value: Value | None, field: str) -> None:
    for pair in _each(value):
        reader.add_vector(pair.members.get("positive"), field)
        reader.add_vector(pair.members.get("negative"), field)


def _add_query(reader: RestReader, value: Value, depth: int = 0) -> None:
    for prefetch in _each(value.members.get("prefetch")):
        if depth == MAX_DEPTH:
            raise MalformedError(f"prefetch: nested more than {MAX_DEPTH} deep (byte {prefetch.start})")
        _add_query(reader, prefetch, depth + 1)
    query = value.members.get("query")
    if query is None or reader.body[query.start] in b"n":  # null is no query
        return
    field = _field(reader, value)
    if _add_variant(reader, query, field):
        reader.add_score(value.members.get("score_threshold"), field)


def _add_variant(reader: RestReader, query: Value, field: str) -> bool:
    """Add the vectors of a query; whether its results are scored in the vector space of the field."""
    members = query.members
    if query.kind != "object" or members.keys() & {"indices", "model"}:
        return reader.add_vector(query, field)
    if "nearest" in members:
        return reader.add_vector(members["nearest"], field)
    if "recommend" in members:
        return _add_examples(reader, members["recommend"], field)
    if "discover" in members:
        reader.add_vector(members["discover"].members.get("target"), field)
        _add_context(reader, members["discover"].members.get("context"), field)
    elif "context" in members:
        _add_context(reader, members["context"], field)
    elif "relevance_feedback" in members:
        _add_feedback(reader, members["relevance_feedback"], field)
    return False


def _add_feedback(reader: RestReader, value: Value, field: str) -> None:
    reader.add_vector(value.members.get("target"), field)
    for item in _each(value.members.get("feedback")):
        reader.add_vector(item.members.get("example"), field)
        reader.add_score(item.members.get("score"), field, "feedback")


def read_point(body: bytes, collection: str) -> QdrantMessage:
    """GET of one point: no body, and the answer always carries its vectors."""
    return QdrantMessage(body, (collection,), (), True, None, edit_rest)


read_points = _reader(_POINTS, Role.DOCUMENT, _add_points)
read_operations = _reader(_UPDATE, Role.DOCUMENT, _add_operations)
read_selection = _reader(_SELECTORS, Role.QUERY, _add_nothing)
read_search = _reader(_SEARCH, Role.QUERY, _add_search)
read_search_batch = _batch_reader(_SEARCH, _add_search)
read_recommend = _reader(_RECOMMEND, Role.QUERY, _add_recommend)
read_recommend_batch = _batch_reader(_RECOMMEND, _add_recommend)
read_discover = _reader(_DISCOVER, Role.QUERY, _add_discover)
read_discover_batch = _batch_reader(_DISCOVER, _add_discover)
read_query = _reader(_QUERY, Role.QUERY, _add_query)
read_query_batch = _batch_reader(_QUERY, _add_query)


def read_answer(body: bytes, request: QdrantMessage) -> QdrantMessage:
    """Any REST answer: the vectors of its points, hits and looked-up points, wherever its `result` keeps them."""
    collection = request.collections[0]
    reader = RestReader(body, collection, Role.RESULT, [])
    looked_up = RestReader(body, request.lookup or "", Role.RESULT, reader.slots)
    result = scan_json(body, {"result": _RESULT}).members.get("result")
    if result is not None:
        _add_result(reader, looked_up, result)
    return QdrantMessage(body, (collection,), reader.slots, False, None, edit_rest)


def _add_result(reader: RestReader, looked_up: RestReader, value: Value) -> None:
    for item in value.elements:
        _add_result(reader, looked_up, item)
    if "vector" in value.members:
        _add_output(reader, value.members["vector"])
    if "points" in value.members:
        _add_result(reader, looked_up, value.members["points"])
    for group in _each(value.members.get("groups")):
        for hit in _each(group.members.get("hits")):
            _add_output(reader, hit.members.get("vector"))
        lookup = group.members.get("lookup")
        if lookup is not None:
            _add_output(looked_up, lookup.members.get("vector"))


def _add_output(reader: RestReader, value: Value | None) -> None:
    if value is not None and value.kind == "object":
        for name, vector in value.members.items():
            reader.add_vector(vector, name)
    else:
        reader.add_vector(value, "")
