"""The methods of Qdrant's API that can carry vectors, over both transports, and who reads them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from ..dialect import Operation
from . import answers, rest, search, write
from . import read as reads
from .message import QdrantMessage

RequestReader = Callable[[bytes], QdrantMessage]


@dataclass(frozen=True, slots=True)
class GrpcMethod:
    """An operation with the readers of its two messages; `answer` is None where no answer carries vectors."""

    operation: Operation
    request: RequestReader
    answer: answers.AnswerReader | None


def _grpc(name: str, request: RequestReader, answer: answers.AnswerReader | None) -> GrpcMethod:
    path = f"/qdrant.Points/{name}"
    return GrpcMethod(Operation(name, "grpc", "POST", path, answer is None, answer is not None), request, answer)


_GRPC: Final = (
    _grpc("Upsert", write.read_upsert, None),
    _grpc("UpdateVectors", write.read_update_vectors, None),
    _grpc("UpdateBatch", write.read_update_batch, None),
    _grpc("Search", search.read_search, answers.read_search_answer),
    _grpc("SearchBatch", search.read_search_batch, answers.read_search_batch_answer),
    _grpc("SearchGroups", search.read_search_groups, answers.read_search_groups_answer),
    _grpc("Recommend", search.read_recommend, answers.read_recommend_answer),
    _grpc("RecommendBatch", search.read_recommend_batch, answers.read_recommend_batch_answer),
    _grpc("RecommendGroups", search.read_recommend_groups, answers.read_recommend_groups_answer),
    _grpc("Discover", search.read_discover, answers.read_discover_answer),
    _grpc("DiscoverBatch", search.read_discover_batch, answers.read_discover_batch_answer),
    _grpc("Query", search.read_query, answers.read_query_answer),
    _grpc("QueryBatch", search.read_query_batch, answers.read_query_batch_answer),
    _grpc("QueryGroups", search.read_query_groups, answers.read_query_groups_answer),
    _grpc("Get", reads.read_get, answers.read_get_answer),
    _grpc("Scroll", reads.read_scroll, answers.read_scroll_answer),
)
GRPC_METHODS: Final = {method.operation.path: method for method in _GRPC}


@dataclass(frozen=True, slots=True)
class RestMethod:
    """An operation with the reader of its requests; all REST answers are read alike."""

    operation: Operation
    request: rest.RestRequestReader


def _rest(name: str, method: str, tail: str, request: rest.RestRequestReader, writes: bool = False) -> RestMethod:
    path = f"/collections/{{collection}}/{tail}"
    return RestMethod(Operation(name, "rest", method, path, writes, not writes), request)


REST_METHODS: Final = (
    _rest("Upsert", "PUT", "points", rest.read_points, writes=True),
    _rest("UpdateVectors", "PUT", "points/vectors", rest.read_points, writes=True),
    _rest("UpdateBatch", "POST", "points/batch", rest.read_operations, writes=True),
    _rest("Search", "POST", "points/search", rest.read_search),
    _rest("SearchBatch", "POST", "points/search/batch", rest.read_search_batch),
    _rest("SearchGroups", "POST", "points/search/groups", rest.read_search),
    _rest("Recommend", "POST", "points/recommend", rest.read_recommend),
    _rest("RecommendBatch", "POST", "points/recommend/batch", rest.read_recommend_batch),
    _rest("RecommendGroups", "POST", "points/recommend/groups", rest.read_recommend),
    _rest("Discover", "POST", "points/discover", rest.read_discover),
    _rest("DiscoverBatch", "POST", "points/discover/batch", rest.read_discover_batch),
    _rest("Query", "POST", "points/query", rest.read_query),
    _rest("QueryBatch", "POST", "points/query/batch", rest.read_query_batch),
    _rest("QueryGroups", "POST", "points/query/groups", rest.read_query),
    _rest("Get", "POST", "points", rest.read_selection),
    _rest("Get", "GET", "points/{id}", rest.read_point),
    _rest("Scroll", "POST", "points/scroll", rest.read_selection),
    _rest("Get", "POST", "shards/{shard}/points", rest.read_selection),
    _rest("Scroll", "POST", "shards/{shard}/points/scroll", rest.read_selection),
)


def _compile_path(method: RestMethod) -> re.Pattern[str]:
    pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", method.operation.path)
    return re.compile(pattern)


_PATTERNS: Final = [(method.operation.method, _compile_path(method), method) for method in REST_METHODS]


def find_rest(verb: str, path: str) -> RestMethod | None:
    """The method a request line names; `path` is without its query string."""
    for operation_verb, pattern, method in _PATTERNS:
        if verb == operation_verb and pattern.fullmatch(path):
            return method
    return None


def collection_of(path: str) -> str:
    """The collection a REST path names, percent-decoded."""
    return unquote(path.split("/", 3)[2])
