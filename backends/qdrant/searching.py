"""Plain searches of a request, found and asked otherwise: Search and Query for the nearest points, and their batches.

What is changed of a search is its vector, limit, offset, threshold, filter and what it wants to see; everything else,
parameters, shard keys and unknown fields among it, is asked as it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from ..dialect import Edit, Operation, ScoreSlot, VectorSlot
from ..index import PointId
from ..reading import Asking, Search, fill_slot
from ..wire import Found, Patch, Span, compile_shapes, encode_field, encode_varint, read_float, read_uint, rewrite, scan
from ..wire import root_span as root
from .message import QdrantMessage
from .read import selects_vectors
from .schema import SHAPES as SLOT_SHAPES

TABLE: Final = {
    "SearchPoints": (
        "collection_name=1:string vector=2:floats filter=3:Filter limit=4:uint with_payload=6:WithPayloadSelector "
        "score_threshold=8:float offset=9:uint vector_name=10:string with_vectors=11:WithVectorsSelector "
        "sparse_indices=15:SparseIndices"
    ),
    "SearchBatchPoints": "collection_name=1:string search_points=2:SearchPoints",
    "QueryPoints": (
        "collection_name=1:string prefetch=2:PrefetchQuery query=3:Query using=4:string filter=5:Filter "
        "score_threshold=7:float limit=8:uint offset=9:uint with_vectors=10:WithVectorsSelector "
        "with_payload=11:WithPayloadSelector"
    ),
    "QueryBatchPoints": "collection_name=1:string query_points=2:QueryPoints",
    "WithPayloadSelector": (
        "enable=1:bool|selector_options include=2:PayloadIncludeSelector|selector_options "
        "exclude=3:PayloadExcludeSelector|selector_options"
    ),
}
_SHAPES: Final = compile_shapes(TABLE)


class _Form(NamedTuple):
    """One method: its message, the field that holds its searches (None: it is one), and what a search looks like."""

    message: str
    items: str | None
    item: str
    filter: int  # field numbers
    limit: int
    default: int  # of the limit


_FORMS: Final = {
    "Search": _Form("SearchPoints", None, "SearchPoints", 3, 4, 0),
    "SearchBatch": _Form("SearchBatchPoints", "search_points", "SearchPoints", 3, 4, 0),
    "Query": _Form("QueryPoints", None, "QueryPoints", 5, 8, 10),
    "QueryBatch": _Form("QueryBatchPoints", "query_points", "QueryPoints", 5, 8, 10),
}


def find_searches(operation: Operation, request: QdrantMessage) -> Sequence[Search] | None:
    """The searches of a request that consists of nothing but plain ones, each with its slot of the request."""
    form = _FORMS.get(operation.name)
    if form is None:
        return None
    body, slots = request.body, iter(request.slots)
    searches = []
    for index, found in enumerate(_read_items(body, form)[1]):
        slot = next(slots, None) if _is_plain(body, found) else None
        if slot is None or isinstance(slot, ScoreSlot) or (isinstance(slot, VectorSlot) and len(slot.rows) != 1):
            return None
        threshold = None
        if "score_threshold" in found:
            threshold = read_float(body, found["score_threshold"][-1])
            if not isinstance(next(slots, None), ScoreSlot):
                return None
        limit = read_uint(body, found, "limit")
        limit = form.default if limit is None else limit
        offset = read_uint(body, found, "offset") or 0
        payload = _wants_payload(body, found)
        searches.append(Search(slot, limit, offset, threshold, payload, selects_vectors(body, found), index))
    return searches if next(slots, None) is None and all(one.limit for one in searches) else None


def _read_items(body: bytes, form: _Form) -> tuple[list[Span], list[Found]]:
    whole = root(body, form.message)
    spans = [whole]
    if form.items is not None:
        spans = scan(body, spans, _SHAPES[form.message]).get(form.items, [])
    return spans, [scan(body, (span,), _SHAPES[form.item]) for span in spans]


def _is_plain(body: bytes, found: Found) -> bool:
    """Whether a search asks for the points nearest to one dense vector or text, and nothing else."""
    if "prefetch" in found or "sparse_indices" in found:
        return False
    if "query" not in found:
        return "vector" in found
    variant = scan(body, found["query"], SLOT_SHAPES["Query"])
    if "nearest" not in variant:
        return False
    given = scan(body, variant["nearest"], SLOT_SHAPES["VectorInput"])
    return "dense" in given or "document" in given


def _wants_payload(body: bytes, found: Found) -> bool:
    if "with_payload" not in found:
        return False
    selector = scan(body, found["with_payload"], _SHAPES["WithPayloadSelector"])
    return "include" in selector or "exclude" in selector or bool(read_uint(body, selector, "enable"))


def form_searches(operation: Operation, request: QdrantMessage, asked: Sequence[tuple[Search, Asking]]) -> bytes:
    """The request with its searches asked otherwise; those that are not given are left out."""
    form = _FORMS[operation.name]
    edits: list[Edit] = [fill_slot(search.slot, asking.vector) for search, asking in asked]
    body = request.edited(edits)
    wanted = {search.place: asking for search, asking in asked}
    patches: list[Patch] = []
    for index, (span, found) in enumerate(zip(*_read_items(body, form), strict=True)):
        if index in wanted:
            patches += _patch_item(body, form, span, found, wanted[index])
        else:
            patches.append((span[0], span[3], b"", span[4]))
    return rewrite(body, patches)


def _patch_item(body: bytes, form: _Form, span: Span, found: Found, asking: Asking) -> Iterator[Patch]:
    names = ["limit", "offset", "score_threshold"]
    added = encode_varint(form.limit << 3) + encode_varint(asking.limit)
    if asking.bare:
        names += ["with_payload", "with_vectors"]
    if asking.among is not None:
        names.append("filter")
        kept = b"".join(body[old[2] : old[3]] for old in found.get("filter", ())) if asking.narrow else b""
        added += encode_field(form.filter, _write_filter(asking.among, kept))
    for name in names:
        for old in found.get(name, ()):
            yield old[0], old[3], b"", old[4]
    yield span[3], span[3], added, span


def _write_filter(points: Sequence[PointId], kept: bytes) -> bytes:
    """A Filter that these points pass and no other: must { has_id { has_id: ... } }, and must { filter: kept }."""
    ids = b"".join(encode_field(1, write_id(point)) for point in points)
    return encode_field(2, encode_field(3, ids)) + (encode_field(2, encode_field(4, kept)) if kept else b"")


def write_id(point: PointId) -> bytes:
    """A PointId."""
    return encode_field(2, point.encode()) if isinstance(point, str) else b"\x08" + encode_varint(point)
