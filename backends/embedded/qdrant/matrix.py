"""Distance matrices: a sample of points, and the nearest of the sample to each of them."""

from __future__ import annotations

from typing import Any

from qdrant_client import grpc as pb

from .engine import edge
from .errors import WrongInput, engine_errors
from .filters import read_filter
from .shard import Collection
from .store import Store
from .values import write_id

SAMPLE = 10
NEIGHBOURS = 3


def search_matrix(store: Store, request: pb.SearchMatrixPoints) -> list[pb.SearchMatrixPair]:
    """Pairs (a, b, score): for each sampled point a, its nearest sampled points b, best first.

    The matrix is sparse: `limit` scores a row, over a random sample of the points that have the vector.
    """
    collection = store.collection(request.collection_name)
    sample = request.sample if request.HasField("sample") else SAMPLE
    limit = request.limit if request.HasField("limit") else NEIGHBOURS
    if sample < 2 or limit < 1:
        raise WrongInput(f"sample is {sample} and limit {limit}; a matrix needs 2 points and 1 neighbour or more")
    with engine_errors():
        points = _sample(collection, request, sample)
        ids = {point.id for point in points}
        queries = [_neighbours(point, request.using, ids, limit) for point in points]
        answers = collection.ask("query_batch", edge.QueryBatchRequest(queries)) if queries else []
    return [
        pb.SearchMatrixPair(a=write_id(point.id), b=write_id(near.id), score=near.score)
        for point, answer in zip(points, answers, strict=True)
        for near in answer
    ]


def _sample(collection: Collection, request: pb.SearchMatrixPoints, count: int) -> list[Any]:
    wanted = [edge.HasVectorCondition(request.using)]
    if request.HasField("filter"):
        wanted.append(read_filter(request.filter))
    query = edge.QueryRequest(
        limit=count, query=edge.Sample.Random, filter=edge.Filter(must=wanted), with_vector=[request.using]
    )
    found = collection.ask("query", query)
    return sorted(found, key=lambda point: (isinstance(point.id, int), point.id))


def _neighbours(point: Any, using: str, ids: set[Any], limit: int) -> Any:
    vector = point.vector.get(using) if isinstance(point.vector, dict) else point.vector
    others = edge.Filter(must=[edge.HasIdCondition(ids - {point.id})])
    return edge.QueryRequest(limit=limit, query=edge.Query.Nearest(vector, using), filter=others)


def write_offsets(pairs: list[pb.SearchMatrixPair]) -> pb.SearchMatrixOffsets:
    """The same matrix as coordinates: row and column of each score in the list of ids."""
    ids: dict[str, pb.PointId] = {}
    for pair in pairs:
        ids.setdefault(str(pair.a), pair.a)
    for pair in pairs:
        ids.setdefault(str(pair.b), pair.b)
    place = {text: index for index, text in enumerate(ids)}
    return pb.SearchMatrixOffsets(
        offsets_row=[place[str(pair.a)] for pair in pairs],
        offsets_col=[place[str(pair.b)] for pair in pairs],
        scores=[pair.score for pair in pairs],
        ids=ids.values(),
    )
