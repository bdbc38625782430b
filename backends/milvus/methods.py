"""The methods of Milvus's API that can carry vectors or tell their lengths, and who reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..dialect import Operation, RequestContext
from . import describe, read, rest, search, write
from .message import MilvusMessage
from .schema import SERVICE

RequestReader = Callable[[bytes, RequestContext], MilvusMessage]
AnswerReader = Callable[[bytes, MilvusMessage], MilvusMessage]


@dataclass(frozen=True, slots=True)
class GrpcMethod:
    """An operation with the readers of its two messages; `answer` is None where no answer carries vectors."""

    operation: Operation
    request: RequestReader
    answer: AnswerReader | None


def _grpc(
    name: str, request: RequestReader, answer: AnswerReader | None, writes: bool = False, describes: bool = False
) -> GrpcMethod:
    operation = Operation(name, "grpc", "POST", f"{SERVICE}/{name}", writes, answer is not None, describes)
    return GrpcMethod(operation, request, answer)


_GRPC: Final = (
    _grpc("Insert", write.read_insert, None, writes=True),
    _grpc("Upsert", write.read_upsert, None, writes=True),
    _grpc("Search", search.read_search, read.read_search_answer),
    _grpc("HybridSearch", search.read_hybrid_search, read.read_search_answer),
    _grpc("Query", read.read_query, read.read_query_answer),
    _grpc("DescribeCollection", describe.read_describe, None, describes=True),
    _grpc("BatchDescribeCollection", describe.read_batch_describe, None, describes=True),
)
GRPC_METHODS: Final = {method.operation.path: method for method in _GRPC}


@dataclass(frozen=True, slots=True)
class RestMethod:
    """An operation with the reader of its requests; all REST answers with rows are read alike."""

    operation: Operation
    request: rest.RestRequestReader


def _rest(
    name: str, path: str, request: rest.RestRequestReader, method: str = "POST", describes: bool = False
) -> RestMethod:
    writes = request is rest.read_rows
    return RestMethod(Operation(name, "rest", method, path, writes, not writes and not describes, describes), request)


_V2: Final = "/v2/vectordb"
_V1: Final = "/v1/vector"
_REST: Final = (
    _rest("Insert", f"{_V2}/entities/insert", rest.read_rows),
    _rest("Upsert", f"{_V2}/entities/upsert", rest.read_rows),
    _rest("Search", f"{_V2}/entities/search", rest.read_search),
    _rest("HybridSearch", f"{_V2}/entities/hybrid_search", rest.read_search),
    _rest("HybridSearch", f"{_V2}/entities/advanced_search", rest.read_search),
    _rest("Query", f"{_V2}/entities/query", rest.read_selection),
    _rest("Query", f"{_V2}/entities/get", rest.read_selection),
    _rest("DescribeCollection", f"{_V2}/collections/describe", rest.read_description, describes=True),
    _rest("Insert", f"{_V1}/insert", rest.read_rows),
    _rest("Upsert", f"{_V1}/upsert", rest.read_rows),
    _rest("Search", f"{_V1}/search", rest.read_search),
    _rest("Query", f"{_V1}/query", rest.read_selection),
    _rest("Query", f"{_V1}/get", rest.read_selection),
    _rest("DescribeCollection", f"{_V1}/collections/describe", rest.read_description, "GET", describes=True),
)
REST_METHODS: Final = {(method.operation.method, method.operation.path): method for method in _REST}
