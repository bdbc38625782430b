"""Universal queries: protobuf to the engine's, with point ids replaced by the vectors that they stand for.

`Scope` is what one level of a query (the root, or a prefetch) needs to know: the collection, the vector name it
searches, where ids are looked up, and its limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from qdrant_client import grpc as pb

from .engine import edge
from .errors import BadRequest, NotFound, Unprocessable, WrongInput, engine_errors
from .examples import average_vector
from .filters import read_filter, write_time
from .formula import read_formula
from .shard import Collection
from .store import Store
from .values import given, read_id, read_payload_selector, read_vector, read_vectors_selector

DEFAULT_LIMIT = 10
RRF_K = 2  # Qdrant's constant where the client names none
MMR_DIVERSITY = 0.5

_VECTOR_KINDS = {"nearest", "nearest_with_mmr", "recommend", "discover", "context", "relevance_feedback"}


class Level(Protocol):
    """What QueryPoints, QueryPointGroups and PrefetchQuery have in common."""

    @property
    def query(self) -> pb.Query: ...
    @property
    def using(self) -> str: ...
    @property
    def lookup_from(self) -> pb.LookupLocation: ...
    @property
    def prefetch(self) -> Iterable[pb.PrefetchQuery]: ...
    def HasField(self, field_name: Any) -> bool: ...  # noqa: N802, RUF100  # protobuf's name


@dataclass(frozen=True)
class Scope:
    """Where one level of a query searches, and where its point ids are looked up."""

    using: str
    limit: int
    source: Collection
    source_vector: str

    def vector(self, given_input: pb.VectorInput) -> Any:
        """The vector that an input is or names; raises NotFound for ids or vectors that are not there."""
        if given_input.WhichOneof("variant") == "id":
            return self._look_up(read_id(given_input.id))
        return read_vector(given_input)

    def _look_up(self, point_id: int | str) -> Any:
        with engine_errors():
            records = self.source.ask("retrieve", [point_id], False, [self.source_vector])
        if not records:
            raise NotFound(f"No point with id {point_id} found")
        vectors = records[0].vector
        vector = vectors.get(self.source_vector) if isinstance(vectors, dict) else vectors
        if vector is None:
            raise NotFound(f'Not found: Vector with name "{self.source_vector}" for point {point_id}')
        return vector


def scope_of(store: Store, collection: Collection, level: Level, limit: int) -> Scope:
    """The scope of one level of a query."""
    source, vector = collection, level.using
    if level.HasField("lookup_from"):
        source = store.collection(level.lookup_from.collection_name)
        vector = level.lookup_from.vector_name or level.using
    return Scope(level.using, limit, source, vector)


def read_query(store: Store, collection: Collection, request: pb.QueryPoints) -> Any:
    """The engine's request for a query; referenced points are left out of the answer, as Qdrant does."""
    check_level(request)
    limit = request.limit if request.HasField("limit") else DEFAULT_LIMIT
    if limit < 1:
        raise Unprocessable(f"[limit: value {limit} invalid, must be 1 or larger]")
    scope = scope_of(store, collection, request, limit)
    query = read_scoring(scope, request.query) if request.HasField("query") else None
    random = request.query.WhichOneof("variant") == "sample" and not request.prefetch
    return edge.QueryRequest(
        limit=limit,
        offset=0 if random else request.offset,
        query=query,
        prefetches=[read_prefetch(store, collection, prefetch) for prefetch in request.prefetch],
        with_vector=read_vectors_selector(request.with_vectors),
        with_payload=read_payload_selector(request.with_payload),
        filter=exclude_points(request, set(referenced_points(store, collection, request))),
        score_threshold=given(request, "score_threshold"),
        params=read_params(request.params) if request.HasField("params") else None,
    )


def read_prefetch(store: Store, collection: Collection, prefetch: pb.PrefetchQuery) -> Any:
    """The engine's prefetch, with its own prefetches."""
    check_level(prefetch)
    limit = prefetch.limit if prefetch.HasField("limit") else DEFAULT_LIMIT
    scope = scope_of(store, collection, prefetch, limit)
    return edge.Prefetch(
        limit=limit,
        query=read_scoring(scope, prefetch.query) if prefetch.HasField("query") else None,
        prefetches=[read_prefetch(store, collection, inner) for inner in prefetch.prefetch],
        params=read_params(prefetch.params) if prefetch.HasField("params") else None,
        filter=read_filter(prefetch.filter) if prefetch.HasField("filter") else None,
        score_threshold=given(prefetch, "score_threshold"),
    )


def check_level(level: Any) -> None:
    """Refuse combinations that mean nothing: see the texts."""
    kind = level.query.WhichOneof("variant") if level.HasField("query") else None
    if level.prefetch and kind is None:
        raise BadRequest("A query is needed to merge the prefetches. Can't have prefetches without defining a query.")
    if level.HasField("score_threshold") and kind is None:
        raise BadRequest(
            "A query is needed to use the score_threshold. Can't have score_threshold without defining a query."
        )
    if level.HasField("score_threshold") and kind == "order_by":
        raise BadRequest("Can't use score_threshold with an order_by query.")
    if kind in {"fusion", "rrf"} and level.using:
        raise BadRequest("Fusion queries cannot be combined with the 'using' field.")
    if kind in {"fusion", "rrf"} and not level.prefetch:
        raise BadRequest("Fusion queries need at least one prefetch to merge.")


def read_scoring(scope: Scope, query: pb.Query) -> Any:
    """The engine's scoring query: how points are ranked."""
    kind = query.WhichOneof("variant")
    match kind:
        case "nearest":
            return edge.Query.Nearest(scope.vector(query.nearest), scope.using)
        case "nearest_with_mmr":
            return _read_mmr(scope, query.nearest_with_mmr)
        case "recommend":
            return _read_recommend(scope, query.recommend)
        case "discover":
            target = scope.vector(query.discover.target)
            pairs = _read_pairs(scope, query.discover.context.pairs)
            return edge.Query.Discover(edge.DiscoverQuery(target, pairs), scope.using)
        case "context":
            pairs = _read_pairs(scope, query.context.pairs)
            return edge.Query.Context(edge.ContextQuery(pairs), scope.using)
        case "order_by":
            return read_order(query.order_by)
        case "fusion":
            return edge.Fusion.Dbsf() if query.fusion == pb.Fusion.DBSF else edge.Fusion.Rrf(RRF_K)
        case "rrf":
            k = query.rrf.k if query.rrf.HasField("k") else RRF_K
            return edge.Fusion.Rrf(k, list(query.rrf.weights) or None)
        case "sample":
            return edge.Sample.Random
        case "formula":
            return read_formula(query.formula)
        case "relevance_feedback":
            return _read_feedback(scope, query.relevance_feedback)
        case "text":
            return _read_text(scope, query.text)
    raise WrongInput("Malformed Query: none of its kinds is set")


def _read_mmr(scope: Scope, query: pb.NearestInputWithMmr) -> Any:
    diversity = query.mmr.diversity if query.mmr.HasField("diversity") else MMR_DIVERSITY
    if not 0 <= diversity <= 1:
        raise WrongInput(f"mmr.diversity is {diversity:g}; it must be from 0 to 1")
    candidates = query.mmr.candidates_limit if query.mmr.HasField("candidates_limit") else scope.limit
    return edge.Mmr(scope.vector(query.nearest), 1 - diversity, candidates, scope.using)


def _read_recommend(scope: Scope, query: pb.RecommendInput) -> Any:
    positives = [scope.vector(item) for item in query.positive]
    negatives = [scope.vector(item) for item in query.negative]
    if query.strategy == pb.RecommendStrategy.AverageVector:
        return edge.Query.Nearest(average_vector(positives, negatives), scope.using)
    if not positives and not negatives:
        raise BadRequest("At least one positive or negative example is required with this strategy")
    recommend = edge.RecommendQuery(positives, negatives)
    if query.strategy == pb.RecommendStrategy.BestScore:
        return edge.Query.RecommendBestScore(recommend, scope.using)
    return edge.Query.RecommendSumScores(recommend, scope.using)


def _read_pairs(scope: Scope, pairs: Iterable[pb.ContextInputPair]) -> list[Any]:
    return [edge.ContextPair(scope.vector(pair.positive), scope.vector(pair.negative)) for pair in pairs]


def _read_feedback(scope: Scope, query: pb.RelevanceFeedbackInput) -> Any:
    if query.strategy.WhichOneof("variant") != "naive":
        raise WrongInput("relevance_feedback.strategy is not set; naive is the one there is")
    naive = query.strategy.naive
    items = [edge.FeedbackItem(scope.vector(item.example), item.score) for item in query.feedback]
    strategy = edge.NaiveFeedbackStrategy(naive.a, naive.b, naive.c)
    return edge.Query.FeedbackNaive(edge.FeedbackNaiveQuery(scope.vector(query.target), items, strategy), scope.using)


def _read_text(scope: Scope, query: pb.TextQuery) -> Any:
    if not scope.using:
        raise WrongInput("A text query needs `using`: the payload field that holds the text")
    scoring = edge.Bm25Params(given(query.bm25, "k"), given(query.bm25, "b"))
    return edge.TextQuery(scope.using, query.query, scoring if query.HasField("bm25") else None)


def read_order(order: pb.OrderBy) -> Any:
    """The engine's ordering by a payload key."""
    direction = None
    if order.HasField("direction"):
        direction = edge.Direction.Desc if order.direction == pb.Direction.Desc else edge.Direction.Asc
    return edge.OrderBy(order.key, direction, _read_start(order.start_from))


def _read_start(start: pb.StartFrom) -> Any:
    kind = start.WhichOneof("value")
    if kind is None:
        return None
    return write_time(start.timestamp) if kind == "timestamp" else getattr(start, kind)


def read_params(params: pb.SearchParams) -> Any:
    """The engine's search parameters."""
    quantization = acorn = idf = None
    if params.HasField("quantization"):
        wanted = params.quantization
        quantization = edge.QuantizationSearchParams(
            wanted.ignore, given(wanted, "rescore"), given(wanted, "oversampling")
        )
    if params.HasField("acorn"):
        acorn = edge.AcornSearchParams(params.acorn.enable, given(params.acorn, "max_selectivity"))
    if params.HasField("idf"):
        idf = edge.IdfParams(read_filter(params.idf.corpus) if params.idf.HasField("corpus") else None)
    return edge.SearchParams(
        hnsw_ef=given(params, "hnsw_ef"),
        exact=params.exact,
        quantization=quantization,
        indexed_only=params.indexed_only,
        acorn=acorn,
        idf=idf,
    )


def referenced_points(store: Store, collection: Collection, level: Level) -> Iterator[int | str]:
    """Ids used as examples from the searched collection itself, at this level and below."""
    elsewhere = level.HasField("lookup_from") and (
        store.collection(level.lookup_from.collection_name) is not collection
    )
    if not elsewhere and level.HasField("query"):
        for item in _inputs(level.query):
            if item.WhichOneof("variant") == "id":
                yield read_id(item.id)
    for prefetch in level.prefetch:
        yield from referenced_points(store, collection, prefetch)


def _inputs(query: pb.Query) -> Iterator[pb.VectorInput]:
    match query.WhichOneof("variant"):
        case "nearest":
            yield query.nearest
        case "nearest_with_mmr":
            yield query.nearest_with_mmr.nearest
        case "recommend":
            yield from query.recommend.positive
            yield from query.recommend.negative
        case "discover":
            yield query.discover.target
            yield from _pair_inputs(query.discover.context)
        case "context":
            yield from _pair_inputs(query.context)
        case "relevance_feedback":
            yield query.relevance_feedback.target
            for item in query.relevance_feedback.feedback:
                yield item.example


def _pair_inputs(context: pb.ContextInput) -> Iterator[pb.VectorInput]:
    for pair in context.pairs:
        yield pair.positive
        yield pair.negative


def exclude_points(request: Any, points: set[int | str]) -> Any:
    """The engine's filter of a request, without these points; None when there is nothing to filter."""
    asked = read_filter(request.filter) if request.HasField("filter") else None
    if not points:
        return asked
    without = edge.Filter(must_not=[edge.HasIdCondition(points)])
    return without if asked is None else edge.Filter(must=[asked, without])
