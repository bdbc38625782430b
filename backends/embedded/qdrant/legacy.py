"""Search, recommend and discover, which Qdrant deprecated and still serves: each is a universal query."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qdrant_client import grpc as pb

from .errors import BadRequest, WrongInput

_SHARED = ("filter", "params", "score_threshold", "with_vectors", "with_payload", "lookup_from", "using")
_PAGE = ("limit", "offset")


def search_query(request: pb.SearchPoints) -> pb.QueryPoints:
    """The query that a search stands for."""
    return _with_rest(request, _search(request), _PAGE)


def search_groups_query(request: pb.SearchPointGroups) -> pb.QueryPointGroups:
    """The grouped query that a grouped search stands for."""
    return _with_groups(request, _search(request))


def recommend_query(request: pb.RecommendPoints) -> pb.QueryPoints:
    """The query that a recommendation stands for."""
    return _with_rest(request, _recommend(request), _PAGE)


def recommend_groups_query(request: pb.RecommendPointGroups) -> pb.QueryPointGroups:
    """The grouped query that a grouped recommendation stands for."""
    return _with_groups(request, _recommend(request))


def discover_query(request: pb.DiscoverPoints) -> pb.QueryPoints:
    """The query that a discovery stands for: a context search where no target is given."""
    pairs = [
        pb.ContextInputPair(positive=_example(pair.positive), negative=_example(pair.negative))
        for pair in request.context
    ]
    context = pb.ContextInput(pairs=pairs)
    if request.HasField("target"):
        query = pb.Query(discover=pb.DiscoverInput(target=_example(request.target.single), context=context))
    elif pairs:
        query = pb.Query(context=context)
    else:
        raise BadRequest("Discovery needs a target, a context of pairs, or both")
    return _with_rest(request, pb.QueryPoints(query=query), _PAGE)


def _search(request: Any) -> pb.QueryPoints:
    nearest = pb.VectorInput()
    if request.HasField("sparse_indices"):
        nearest.sparse.values.extend(request.vector)
        nearest.sparse.indices.extend(request.sparse_indices.data)
    else:
        nearest.dense.data.extend(request.vector)
    using = request.vector_name if request.HasField("vector_name") else None
    return pb.QueryPoints(query=pb.Query(nearest=nearest), using=using)


def _recommend(request: Any) -> pb.QueryPoints:
    recommend = pb.RecommendInput(
        positive=_examples(request.positive, request.positive_vectors),
        negative=_examples(request.negative, request.negative_vectors),
        strategy=request.strategy if request.HasField("strategy") else pb.RecommendStrategy.AverageVector,
    )
    return pb.QueryPoints(query=pb.Query(recommend=recommend))


def _examples(ids: Iterable[pb.PointId], vectors: Iterable[pb.Vector]) -> list[pb.VectorInput]:
    return [pb.VectorInput(id=point) for point in ids] + [as_input(vector) for vector in vectors]


def _example(example: pb.VectorExample) -> pb.VectorInput:
    kind = example.WhichOneof("example")
    if kind is None:
        raise WrongInput("Malformed VectorExample: neither an id nor a vector given")
    return pb.VectorInput(id=example.id) if kind == "id" else as_input(example.vector)


def as_input(vector: pb.Vector) -> pb.VectorInput:
    """The query input that a stored-vector message stands for."""
    kind = vector.WhichOneof("vector")
    if kind is not None:
        return pb.VectorInput(**{kind: getattr(vector, kind)})
    if vector.HasField("indices"):
        return pb.VectorInput(sparse=pb.SparseVector(values=vector.data, indices=vector.indices.data))
    return pb.VectorInput(dense=pb.DenseVector(data=vector.data))


def _with_rest(request: Any, query: pb.QueryPoints, page: tuple[str, ...]) -> pb.QueryPoints:
    query.collection_name = request.collection_name
    _copy_fields(request, query, (*_SHARED, *page))
    return query


def _with_groups(request: Any, query: pb.QueryPoints) -> pb.QueryPointGroups:
    groups = pb.QueryPointGroups(query=query.query, using=query.using if query.HasField("using") else None)
    groups.collection_name = request.collection_name
    _copy_fields(request, groups, (*_SHARED, "with_lookup", "limit", "group_size", "group_by"))
    return groups


def _copy_fields(source: Any, target: Any, names: tuple[str, ...]) -> None:
    """Copy the fields that the sender set, and that both messages have."""
    for descriptor, value in source.ListFields():
        if descriptor.name not in names:
            continue
        if descriptor.message_type is None:
            setattr(target, descriptor.name, value)
        else:
            getattr(target, descriptor.name).CopyFrom(value)
