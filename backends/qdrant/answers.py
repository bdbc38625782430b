"""gRPC answers that carry vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..dialect import Role
from ..wire import Shape, Span, root_span, scan
from .message import QdrantMessage
from .schema import SHAPES
from .wire_slots import VECTOR_OUTPUT, WireReader, edit_wire
from .write import add_named

AnswerReader = Callable[[bytes, QdrantMessage], QdrantMessage]

_SCORED = SHAPES["ScoredPoint"]
_RETRIEVED = SHAPES["RetrievedPoint"]
_VECTORS = SHAPES["VectorsOutput"]
_NAMED = SHAPES["NamedVectorsOutput"]
_ENTRY = SHAPES["NamedVectorsOutput.VectorsEntry"]


def read_points(message: str, point: Shape = _SCORED) -> AnswerReader:
    """A reader of answers with result[].vectors."""
    shape = SHAPES[message]

    def read(body: bytes, request: QdrantMessage) -> QdrantMessage:
        reader = _open(body, request)
        _add_points(reader, scan(body, (root_span(body, message),), shape).get("result", ()), point)
        return _finish(reader)

    return read


def read_batches(message: str) -> AnswerReader:
    """A reader of answers with result[].result[].vectors."""
    shape = SHAPES[message]

    def read(body: bytes, request: QdrantMessage) -> QdrantMessage:
        reader = _open(body, request)
        for span in scan(body, (root_span(body, message),), shape).get("result", ()):
            _add_points(reader, scan(body, (span,), SHAPES["BatchResult"]).get("result", ()), _SCORED)
        return _finish(reader)

    return read


def read_groups(message: str) -> AnswerReader:
    """A reader of answers with result.groups[].hits[].vectors and result.groups[].lookup.vectors."""
    shape = SHAPES[message]

    def read(body: bytes, request: QdrantMessage) -> QdrantMessage:
        reader = _open(body, request)
        looked_up = WireReader(body, request.lookup or "", Role.RESULT, reader.slots)
        result = scan(body, (root_span(body, message),), shape).get("result", ())
        for span in scan(body, result, SHAPES["GroupsResult"]).get("groups", ()):
            group = scan(body, (span,), SHAPES["PointGroup"])
            _add_points(reader, group.get("hits", ()), _SCORED)
            if "lookup" in group:
                _add_point(looked_up, group["lookup"], _RETRIEVED)
        return _finish(reader)

    return read


def _open(body: bytes, request: QdrantMessage) -> WireReader:
    return WireReader(body, request.collections[0], Role.RESULT, [])


def _finish(reader: WireReader) -> QdrantMessage:
    return QdrantMessage(reader.body, (reader.collection,), reader.slots, False, None, edit_wire)


def _add_points(reader: WireReader, points: Sequence[Span], shape: Shape) -> None:
    for point in points:
        _add_point(reader, (point,), shape)


def _add_point(reader: WireReader, spans: Sequence[Span], shape: Shape) -> None:
    body = reader.body
    found = scan(body, spans, shape)
    if "vectors" in found:
        vectors = scan(body, found["vectors"], _VECTORS)
        if "vector" in vectors:
            reader.add_vector(vectors["vector"], VECTOR_OUTPUT, "")
        elif "vectors" in vectors:
            add_named(reader, vectors["vectors"], _NAMED, _ENTRY, VECTOR_OUTPUT)


read_get_answer = read_points("GetResponse", _RETRIEVED)
read_scroll_answer = read_points("ScrollResponse", _RETRIEVED)
read_search_answer = read_points("SearchResponse")
read_search_batch_answer = read_batches("SearchBatchResponse")
read_search_groups_answer = read_groups("SearchGroupsResponse")
read_recommend_answer = read_points("RecommendResponse")
read_recommend_batch_answer = read_batches("RecommendBatchResponse")
read_recommend_groups_answer = read_groups("RecommendGroupsResponse")
read_discover_answer = read_points("DiscoverResponse")
read_discover_batch_answer = read_batches("DiscoverBatchResponse")
read_query_answer = read_points("QueryResponse")
read_query_batch_answer = read_batches("QueryBatchResponse")
read_query_groups_answer = read_groups("QueryGroupsResponse")
