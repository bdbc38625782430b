"""Plain gRPC searches, found and asked otherwise: Search for the nearest rows to one or more dense vectors or texts.

What is changed of a request is its vectors, filter, output fields, and of its parameters topk, offset, round_decimal
and those that have to be as large as topk; everything else, partitions, consistency and unknown fields among it, is
asked as it was. A request has one filter and one limit for all its vectors, so searches among different rows are
requests of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson

from ..dialect import MalformedError, Schema, TextSlot, VectorSlot
from ..index import PointId
from ..json_spans import EVERYTHING, Value, read_number, replace_spans, scan_json
from ..reading import Asking, Search
from ..wire import Found, Patch, compile_shapes, encode_field, encode_varint, read_text, rewrite, root_span, scan
from .expressions import hold_expression, name_points
from .forms import write_form
from .message import MilvusMessage
from .slots import QueryPlace

TABLE: Final = {
    "SearchRequest": (
        "dsl=5:string placeholder_group=6:PlaceholderGroup|search_input output_fields=8:string "
        "search_params=9:KeyValuePair nq=12:uint search_by_primary_keys=16:bool sub_reqs=17:SubSearchRequest "
        "expr_template_values=18:ExprTemplateValuesEntry function_score=19:FunctionScore highlighter=21:Highlighter "
        "ids=22:IDs|search_input search_aggregation=23:SearchAggregationSpec function_chains=24:FunctionChain"
    ),
    "KeyValuePair": "key=1:string value=2:string",
}
_SHAPES: Final = compile_shapes(TABLE)
_OTHERWISE: Final = (
    "search_by_primary_keys", "sub_reqs", "function_score", "highlighter", "ids", "search_aggregation",
    "function_chains",
)  # fmt: skip
_GROUPS: Final = ("group_by_field", "group_by_fields", "group_size", "strict_group_size", "order_by_fields")
_ITERATORS: Final = ("iterator", "search_iter_v2")
MOST_HITS: Final = 16_384  # that Milvus answers a query with
MOST_QUERIES: Final = 100  # each is a request of its own when its candidates are scored
_FORMS: Final = {"float": 101, "float16": 102, "bfloat16": 103, "int8": 105}
_AT_LEAST: Final = ("ef", "search_list", "reorder_k")  # of a graph or a rough index: no less than topk
_ALL_LISTS: Final = 65_536  # nprobe: rows that are named may stand in any list of an inverted file


def find_searches(request: MilvusMessage, spare: int) -> Sequence[Search] | None:
    """The searches of a request that is nothing but plain ones, of which `spare` more hits can be asked for."""
    body, schema = request.body, request.schema
    found = scan(body, (root_span(body, "SearchRequest"),), _SHAPES["SearchRequest"])
    if schema is None or not schema.key or any(name in found for name in _OTHERWISE):
        return None
    params = read_params(body, found)
    if any(name in params for name in _GROUPS) or any(params.get(name, "").lower() == "true" for name in _ITERATORS):
        return None
    limit, offset = _read_count(params, "topk", None), _read_count(params, "offset", 0)
    queries = split_slots(request)
    if not limit or offset is None or limit + offset + spare > MOST_HITS or not 0 < len(queries) <= MOST_QUERIES:
        return None
    names = [body[span[2] : span[3]].decode("utf-8", "replace") for span in found.get("output_fields", ())]
    vectors = wants_vectors(names, schema)
    return [
        Search(slot, limit, offset, None, bool(names), vectors, place, row)
        for place, (slot, row) in enumerate(queries)
    ]  # fmt: skip


def split_slots(request: MilvusMessage) -> list[tuple[VectorSlot | TextSlot, int]]:
    """Each query's slot and which row of it the query is; none where there are bounds, or several kinds of queries."""
    slots = [slot for slot in request.slots if isinstance(slot, (VectorSlot, TextSlot))]
    if len(slots) < len(request.slots) or (len(slots) > 1 and any(isinstance(slot, VectorSlot) for slot in slots)):
        return []
    return [(slot, row) for slot in slots for row in range(len(slot.rows) if isinstance(slot, VectorSlot) else 1)]


def wants_vectors(names: Sequence[str], schema: Schema) -> bool:
    """Whether dense vectors are among the fields to be told."""
    return "*" in names or any(name in schema.vectors for name in names)


def read_params(body: bytes, found: Found) -> dict[str, str]:
    """The search parameters; of equal keys the first, as Milvus takes it."""
    params: dict[str, str] = {}
    for span in found.get("search_params", ()):
        pair = scan(body, (span,), _SHAPES["KeyValuePair"])
        params.setdefault(read_text(body, pair, "key"), read_text(body, pair, "value"))
    return params


def _read_count(params: dict[str, str], name: str, default: int | None) -> int | None:
    """A number of hits; None where it is none, which Milvus will say."""
    text = params.get(name)
    return default if text is None else int(text) if text.isascii() and text.isdigit() else None


def read_decimals(request: MilvusMessage) -> int:
    """How many decimals of scores the client wants; negative: all."""
    body = request.body
    params = read_params(body, scan(body, (root_span(body, "SearchRequest"),), _SHAPES["SearchRequest"]))
    try:
        return int(params.get("round_decimal", "-1"))
    except ValueError:
        return -1


def shows_rows(request: MilvusMessage) -> bool:
    """Whether the client wants to see any field."""
    body = request.body
    return "output_fields" in scan(body, (root_span(body, "SearchRequest"),), _SHAPES["SearchRequest"])


def form_searches(request: MilvusMessage, asked: Sequence[tuple[Search, Asking]]) -> bytes:
    """The request with its searches asked otherwise; those that are not given are left out."""
    body, schema = request.body, request.schema
    assert schema is not None  # it has searches
    root = root_span(body, "SearchRequest")
    found = scan(body, (root,), _SHAPES["SearchRequest"])
    asking = asked[0][1]
    replaced = ["placeholder_group", "nq"]
    new = encode_field(6, _write_queries(asked)) + b"\x60" + encode_varint(len(asked))
    if asking.bare:
        replaced.append("output_fields")
        new += encode_field(8, schema.key.encode())  # milvus-lite tells all fields where none is named
    if asking.among is not None:
        kept = read_text(body, found, "dsl") if asking.narrow else ""
        replaced += ["dsl"] if kept else ["dsl", "expr_template_values"]
        new += encode_field(5, name_rows(kept, schema.key, asking.among).encode())
    patches: list[Patch] = [(span[0], span[3], b"", span[4]) for name in replaced for span in found.get(name, ())]
    patches += _patch_params(body, found, asking)
    new += b"".join(_write_pair(key, text) for key, text in (("topk", str(asking.limit)), ("round_decimal", "-1")))
    return rewrite(body, [*patches, (root[3], root[3], new, root)])


def name_rows(kept: str, key: str, among: Sequence[PointId]) -> str:
    """The expression for these rows, if they also pass the one that is `kept`."""
    return hold_expression(kept, key, among) if kept.strip() else name_points(key, among)


def _write_queries(asked: Sequence[tuple[Search, Asking]]) -> bytes:
    """A PlaceholderGroup of the vectors, in the form in which the client's came."""
    place = asked[0][0].slot.place
    form = place.form if isinstance(place, QueryPlace) else "float"
    values = b"".join(encode_field(3, write_form(form, asking.vector)) for _, asking in asked)
    return encode_field(1, encode_field(1, b"$0") + b"\x10" + encode_varint(_FORMS[form]) + values)


def _write_pair(key: str, text: str) -> bytes:
    return encode_field(9, encode_field(1, key.encode()) + encode_field(2, text.encode()))


def _patch_params(body: bytes, found: Found, asking: Asking) -> Iterator[Patch]:
    for span in found.get("search_params", ()):
        pair = scan(body, (span,), _SHAPES["KeyValuePair"])
        key, value = read_text(body, pair, "key"), pair.get("value")
        if key in ("topk", "offset", "round_decimal"):
            yield span[0], span[3], b"", span[4]
        elif key == "params" and value is not None:
            text = widen_params(body[value[-1][2] : value[-1][3]], asking)
            yield value[-1][2], value[-1][3], text, value[-1]


def widen_params(text: bytes, asking: Asking) -> bytes:
    """Search parameters in JSON that look far enough for so many hits, and everywhere for rows that are named."""
    try:
        root = scan_json(text, EVERYTHING)
    except MalformedError:
        return text  # Milvus will say what is wrong with it
    return replace_spans(text, _widen(text, root, asking)) if root.kind == "object" else text


def _widen(text: bytes, level: Value, asking: Asking) -> list[tuple[int, int, bytes]]:
    changed: list[tuple[int, int, bytes]] = []
    for name in _AT_LEAST:
        number = read_number(text, given := level.members.get(name))
        if given is not None and number is not None and number < asking.limit:
            changed.append((given.start, given.end, str(asking.limit).encode()))
    if asking.among is not None:
        probed: Any = level.members.get("nprobe")
        if probed is not None:
            changed.append((probed.start, probed.end, str(_ALL_LISTS).encode()))
        else:
            added = orjson.dumps({"nprobe": _ALL_LISTS})[1:-1] + (b"," if level.members else b"")
            changed.append((level.start + 1, level.start + 1, added))
    inner = level.members.get("params")
    return changed + (_widen(text, inner, asking) if inner is not None and inner.kind == "object" else [])
