"""The methods of Milvus's API that can carry vectors or tell their lengths, and who reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ..dialect import Operation, RequestContext
from . import describe, read, search, write
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
