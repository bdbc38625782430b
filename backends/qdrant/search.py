"""gRPC requests that ask with vectors: Search, Recommend, Discover and Query, their batches and groups.

A batch is run on the collection of the batch itself; those named inside are not looked at, as in Qdrant. A threshold
counts as a score of its field only where the level's results are scored by plain similarity: not for fusion, formula,
order_by and sample, not for discover and context (ranks), the strategies best_score and sum_scores, or relevance
feedback (a formula over it), and not where the vector is sparse or made by the database from an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..dialect import MalformedError, Role, ScoreSlot
from ..wire import Found, Shape, Span, path_of, read_text, read_uint, root_span, scan
from .message import QdrantMessage
from .read import read_lookup, selects_vectors
from .schema import SHAPES
from .wire_slots import VECTOR, VECTOR_INPUT, ScorePlace, WireReader, edit_wire

MAX_DEPTH = 100  # of prefetches inside prefetches; Qdrant's own protobuf reader refuses deeper messages
_AVERAGE_VECTOR = 0  # RecommendStrategy
_PREFETCH = SHAPES["PrefetchQuery"]
_QUERY = SHAPES["Query"]
_EXAMPLE = SHAPES["VectorExample"]
_INPUT_PAIR = SHAPES["ContextInputPair"]

Level = Callable[[WireReader, Found], None]


def add_search(reader: WireReader, found: Found) -> None:
    """SearchPoints and SearchPointGroups."""
    if "sparse_indices" in found:
        return
    field = read_text(reader.body, found, "vector_name")
    reader.add_floats(found.get("vector"), field)
    reader.add_score(found, "score_threshold", field)


def add_recommend(reader: WireReader, found: Found) -> None:
    """RecommendPoints and RecommendPointGroups."""
    field = read_text(reader.body, found, "using")
    examples = [*found.get("positive_vectors", ()), *found.get("negative_vectors", ())]
    if _add_examples(reader, examples, VECTOR, field) and _averages(reader, found):
        reader.add_score(found, "score_threshold", field)


def _add_examples(reader: WireReader, spans: Sequence[Span], shape: Shape, field: str) -> bool:
    dense = [reader.add_vector((span,), shape, field) for span in spans]  # a list: each of them must be read
    return all(dense)


def _averages(reader: WireReader, found: Found) -> bool:
    return (read_uint(reader.body, found, "strategy") or _AVERAGE_VECTOR) == _AVERAGE_VECTOR


def add_discover(reader: WireReader, found: Found) -> None:
    """DiscoverPoints."""
    body = reader.body
    field = read_text(body, found, "using")
    if "target" in found:
        _add_example(reader, scan(body, found["target"], SHAPES["TargetVector"]).get("single"), field)
    for span in found.get("context", ()):
        pair = scan(body, (span,), SHAPES["ContextExamplePair"])
        _add_example(reader, pair.get("positive"), field)
        _add_example(reader, pair.get("negative"), field)


def _add_example(reader: WireReader, spans: Sequence[Span] | None, field: str) -> None:
    if spans is not None:
        example = scan(reader.body, spans, _EXAMPLE)
        if "vector" in example:
            reader.add_vector(example["vector"], VECTOR, field)


def add_query(reader: WireReader, found: Found) -> None:
    """QueryPoints and QueryPointGroups."""
    _add_level(reader, found, 0)


def _add_level(reader: WireReader, found: Found, depth: int) -> None:
    body = reader.body
    for span in found.get("prefetch", ()):
        if depth == MAX_DEPTH:
            raise MalformedError(f"{path_of(span)}: prefetches are nested more than {MAX_DEPTH} deep (byte {span[0]})")
        _add_level(reader, scan(body, (span,), _PREFETCH), depth + 1)
    if "query" in found:
        field = read_text(body, found, "using")
        if _add_variant(reader, scan(body, found["query"], _QUERY), field):
            reader.add_score(found, "score_threshold", field)


def _add_variant(reader: WireReader, query: Found, field: str) -> bool:
    """Add the vectors of a Query; whether its results are scored in the vector space of the field."""
    body = reader.body
    if "nearest" in query:
        return reader.add_vector(query["nearest"], VECTOR_INPUT, field)
    if "nearest_with_mmr" in query:
        mmr = scan(body, query["nearest_with_mmr"], SHAPES["NearestInputWithMmr"])
        return "nearest" in mmr and reader.add_vector(mmr["nearest"], VECTOR_INPUT, field)
    if "recommend" in query:
        recommend = scan(body, query["recommend"], SHAPES["RecommendInput"])
        examples = [*recommend.get("positive", ()), *recommend.get("negative", ())]
        return _add_examples(reader, examples, VECTOR_INPUT, field) and _averages(reader, recommend)
    if "discover" in query:
        discover = scan(body, query["discover"], SHAPES["DiscoverInput"])
        _add_input(reader, discover.get("target"), field)
        _add_context(reader, discover.get("context"), field)
    elif "context" in query:
        _add_context(reader, query["context"], field)
    elif "relevance_feedback" in query:
        _add_feedback(reader, scan(body, query["relevance_feedback"], SHAPES["RelevanceFeedbackInput"]), field)
    return False


def _add_input(reader: WireReader, spans: Sequence[Span] | None, field: str) -> None:
    if spans is not None:
        reader.add_vector(spans, VECTOR_INPUT, field)


def _add_context(reader: WireReader, spans: Sequence[Span] | None, field: str) -> None:
    if spans is not None:
        for span in scan(reader.body, spans, SHAPES["ContextInput"]).get("pairs", ()):
            pair = scan(reader.body, (span,), _INPUT_PAIR)
            _add_input(reader, pair.get("positive"), field)
            _add_input(reader, pair.get("negative"), field)


def _add_feedback(reader: WireReader, feedback: Found, field: str) -> None:
    _add_input(reader, feedback.get("target"), field)
    for span in feedback.get("feedback", ()):
        item = scan(reader.body, (span,), SHAPES["FeedbackItem"])
        _add_input(reader, item.get("example"), field)
        if "score" in item:
            reader.add_score(item, "score", field, "feedback")
        else:  # proto3 does not write a score of 0
            reader.slots.append(ScoreSlot(reader.collection, field, 0.0, ScorePlace(span, absent=2), "feedback"))


def read_one(message: str, add: Level) -> Callable[[bytes], QdrantMessage]:
    """A reader of a single request or a group request."""
    shape = SHAPES[message]

    def read(body: bytes) -> QdrantMessage:
        found = scan(body, (root_span(body, message),), shape)
        reader = WireReader(body, read_text(body, found, "collection_name"), Role.QUERY, [])
        add(reader, found)
        lookup, lookup_vectors = read_lookup(body, found)
        wants = lookup_vectors or selects_vectors(body, found)
        return QdrantMessage(body, (reader.collection,), reader.slots, wants, lookup, edit_wire)

    return read


def read_batch(message: str, items: str, item: str, add: Level) -> Callable[[bytes], QdrantMessage]:
    """A reader of a batch request whose field `items` holds messages `item`."""
    shape, item_shape = SHAPES[message], SHAPES[item]

    def read(body: bytes) -> QdrantMessage:
        found = scan(body, (root_span(body, message),), shape)
        reader = WireReader(body, read_text(body, found, "collection_name"), Role.QUERY, [])
        wants = False
        for span in found.get(items, ()):
            request = scan(body, (span,), item_shape)
            add(reader, request)
            wants = wants or selects_vectors(body, request)
        return QdrantMessage(body, (reader.collection,), reader.slots, wants, None, edit_wire)

    return read


read_search = read_one("SearchPoints", add_search)
read_search_groups = read_one("SearchPointGroups", add_search)
read_search_batch = read_batch("SearchBatchPoints", "search_points", "SearchPoints", add_search)
read_recommend = read_one("RecommendPoints", add_recommend)
read_recommend_groups = read_one("RecommendPointGroups", add_recommend)
read_recommend_batch = read_batch("RecommendBatchPoints", "recommend_points", "RecommendPoints", add_recommend)
read_discover = read_one("DiscoverPoints", add_discover)
read_discover_batch = read_batch("DiscoverBatchPoints", "discover_points", "DiscoverPoints", add_discover)
read_query = read_one("QueryPoints", add_query)
read_query_groups = read_one("QueryPointGroups", add_query)
read_query_batch = read_batch("QueryBatchPoints", "query_points", "QueryPoints", add_query)
