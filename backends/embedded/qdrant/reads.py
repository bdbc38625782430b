"""Reading points: by id, by scrolling, counting, facets, and queries."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qdrant_client import grpc as pb

from .engine import edge
from .errors import Unprocessable, WrongInput, engine_errors
from .filters import read_filter
from .queries import DEFAULT_LIMIT, read_order, read_query
from .shard import Collection
from .store import Store
from .values import read_id, read_payload_selector, read_vectors_selector, write_id, write_payload, write_vectors


class Reads:
    """Every read of Qdrant's Points service that is answered by one collection at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, request: pb.GetPoints) -> list[pb.RetrievedPoint]:
        """The points of the given ids that exist."""
        collection = self._store.collection(request.collection_name)
        ids = list(dict.fromkeys(read_id(point) for point in request.ids))
        payload = read_payload_selector(request.with_payload)
        with engine_errors():
            records = collection.ask("retrieve", ids, payload, read_vectors_selector(request.with_vectors))
        return [write_record(record) for record in records]

    def scroll(self, request: pb.ScrollPoints) -> tuple[list[pb.RetrievedPoint], pb.PointId | None]:
        """One page of points and the id where the next one starts (None at the end, and when ordered)."""
        collection = self._store.collection(request.collection_name)
        limit = request.limit if request.HasField("limit") else DEFAULT_LIMIT
        ordered = request.HasField("order_by")
        if limit < 1:
            raise Unprocessable(f"[limit: value {limit} invalid, must be 1 or larger]")
        if ordered and request.HasField("offset"):
            raise WrongInput("Cannot use an `offset` when using `order_by`. The alternative for paging is `start_from`")
        with engine_errors():
            scroll = edge.ScrollRequest(
                offset=read_id(request.offset) if request.HasField("offset") else None,
                limit=limit,
                filter=read_filter(request.filter) if request.HasField("filter") else None,
                # a scroll gives payloads unless told not to, every other read the other way round
                with_payload=not request.HasField("with_payload") or read_payload_selector(request.with_payload),
                with_vector=read_vectors_selector(request.with_vectors),
                order_by=read_order(request.order_by) if ordered else None,
            )
            records, following = collection.ask("scroll", scroll)
        end = following is None or ordered
        return [write_record(record) for record in records], None if end else write_id(following)

    def count(self, request: pb.CountPoints) -> int:
        """How many points match."""
        collection = self._store.collection(request.collection_name)
        with engine_errors():
            chosen = read_filter(request.filter) if request.HasField("filter") else None
            exact = request.exact if request.HasField("exact") else True
            return int(collection.ask("count", edge.CountRequest(exact=exact, filter=chosen)))

    def facet(self, request: pb.FacetCounts) -> list[pb.FacetHit]:
        """The commonest values of an indexed payload key, most frequent first."""
        collection = self._store.collection(request.collection_name)
        with engine_errors():
            facet = edge.FacetRequest(
                request.key,
                limit=request.limit if request.HasField("limit") else DEFAULT_LIMIT,
                exact=request.exact,
                filter=read_filter(request.filter) if request.HasField("filter") else None,
            )
            hits = collection.ask("facet", facet).hits
        return [pb.FacetHit(value=write_facet(hit.value), count=hit.count) for hit in hits]

    def query(self, request: pb.QueryPoints) -> list[pb.ScoredPoint]:
        """The points that a universal query ranks highest."""
        collection = self._store.collection(request.collection_name)
        wanted = read_vectors_selector(request.with_vectors)
        return [write_scored(point, wanted) for point in self.run(collection, request)]

    def run(self, collection: Collection, request: pb.QueryPoints) -> list[Any]:
        """The engine's own answer to a query."""
        with engine_errors():
            return list(collection.ask("query", read_query(self._store, collection, request)))

    def query_batch(self, collection_name: str, requests: Iterable[pb.QueryPoints]) -> list[pb.BatchResult]:
        """Several queries on one collection, planned together by the engine."""
        collection = self._store.collection(collection_name)
        asked = list(requests)
        with engine_errors():
            queries = [read_query(self._store, collection, request) for request in asked]
        answers = collection.ask("query_batch", edge.QueryBatchRequest(queries)) if queries else []
        batch = []
        for request, points in zip(asked, answers, strict=True):
            wanted = read_vectors_selector(request.with_vectors)
            batch.append(pb.BatchResult(result=[write_scored(point, wanted) for point in points]))
        return batch


def write_record(record: Any) -> pb.RetrievedPoint:
    """The protobuf of a point as the engine retrieved it."""
    point = pb.RetrievedPoint(id=write_id(record.id))
    _write_point(record, point)
    return point


def write_scored(scored: Any, wanted: bool | list[str]) -> pb.ScoredPoint:
    """The protobuf of a point as the engine scored it, with the vectors that were wanted."""
    point = pb.ScoredPoint(id=write_id(scored.id), score=scored.score, version=scored.version)
    _write_point(scored, point, wanted)
    return point


def _write_point(found: Any, point: Any, wanted: bool | list[str] = True) -> None:
    """Fill in payload, vectors and order; MMR leaves the vectors that it compared by in the engine's answer."""
    if found.payload:
        write_payload(found.payload, point.payload)
    vectors = found.vector
    if isinstance(wanted, list) and isinstance(vectors, dict):
        vectors = {name: vector for name, vector in vectors.items() if name in wanted}
    if vectors is not None and wanted is not False:
        write_vectors(vectors, point.vectors)
    value = found.order_value
    if isinstance(value, int):
        point.order_value.int = value
    elif value is not None:
        point.order_value.float = value


def write_facet(value: str | int | bool) -> pb.FacetValue:
    """The protobuf of a facet's value."""
    if isinstance(value, bool):
        return pb.FacetValue(bool_value=value)
    return pb.FacetValue(integer_value=value) if isinstance(value, int) else pb.FacetValue(string_value=value)
