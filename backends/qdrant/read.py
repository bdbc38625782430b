"""gRPC requests that name points, not vectors: Get and Scroll; and the selectors of what an answer is to carry."""

from __future__ import annotations

from ..wire import Found, read_text, read_uint, root_span, scan
from .message import QdrantMessage
from .schema import SHAPES
from .wire_slots import edit_wire

_SELECTOR = SHAPES["WithVectorsSelector"]
_NAMES = SHAPES["VectorsSelector"]
_LOOKUP = SHAPES["WithLookup"]


def read_get(body: bytes) -> QdrantMessage:
    """Ids only; its answer may carry vectors."""
    return _read_selection(body, "GetPoints")


def read_scroll(body: bytes) -> QdrantMessage:
    """A filter only; its answer may carry vectors."""
    return _read_selection(body, "ScrollPoints")


def _read_selection(body: bytes, message: str) -> QdrantMessage:
    found = scan(body, (root_span(body, message),), SHAPES[message])
    collection = read_text(body, found, "collection_name")
    return QdrantMessage(body, (collection,), (), selects_vectors(body, found), None, edit_wire)


def selects_vectors(body: bytes, found: Found) -> bool:
    """Whether the `with_vectors` of a message asks for any vector."""
    spans = found.get("with_vectors")
    if spans is None:
        return False
    selector = scan(body, spans, _SELECTOR)
    if "include" in selector:
        return "names" in scan(body, selector["include"], _NAMES)
    return bool(read_uint(body, selector, "enable"))


def read_lookup(body: bytes, found: Found) -> tuple[str | None, bool]:
    """The collection of `with_lookup`, None when there is none, and whether its vectors are asked for."""
    spans = found.get("with_lookup")
    if spans is None:
        return None, False
    lookup = scan(body, spans, _LOOKUP)
    return read_text(body, lookup, "collection"), selects_vectors(body, lookup)
