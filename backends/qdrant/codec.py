"""Qdrant's dialect: its operations, and its messages read and written."""

from __future__ import annotations

from collections.abc import Sequence

from ..dialect import NO_CONTEXT, Failure, FailureAnswer, Message, Operation, RequestContext, SchemaCodec, Transport
from ..reading import ReadCodec
from ..writing import WriteCodec
from .failure import form_failure
from .message import QdrantMessage
from .methods import GRPC_METHODS, REST_METHODS, collection_of, find_rest
from .reading import QdrantReading
from .rest import read_answer
from .writing import QdrantWriting

_REST_READERS = {method.operation: method.request for method in REST_METHODS}


class QdrantDialect:
    """See dialect.Dialect."""

    kind = "qdrant"
    schemas: SchemaCodec | None = None  # every message says itself which vector it means
    reading: ReadCodec | None = QdrantReading()
    writing: WriteCodec | None = QdrantWriting()
    read_headers: Sequence[str] = ()
    operations: Sequence[Operation] = (
        *(method.operation for method in GRPC_METHODS.values()),
        *(method.operation for method in REST_METHODS),
    )

    def find_operation(self, transport: Transport, method: str, path: str) -> Operation | None:
        """The operation a request line names; a query string is not looked at."""
        path = path.partition("?")[0]
        if transport == "grpc":
            found = GRPC_METHODS.get(path)
            return None if found is None else found.operation
        named = find_rest(method, path)
        return None if named is None else named.operation

    def read_request(
        self, operation: Operation, path: str, body: bytes, context: RequestContext = NO_CONTEXT
    ) -> QdrantMessage:
        """The slots of a request. Raises MalformedError with the byte offset and, for gRPC, the field path."""
        if operation.transport == "grpc":
            return GRPC_METHODS[operation.path].request(body)
        return _REST_READERS[operation](body, collection_of(path))

    def read_answer(self, operation: Operation, request: Message, body: bytes) -> QdrantMessage:
        """The slots of the answer to a request that `read_request` has read. Raises MalformedError."""
        if not isinstance(request, QdrantMessage):
            raise TypeError(f"{operation.name}: the request was read by another dialect ({type(request).__name__})")
        if operation.transport == "rest":
            return read_answer(body, request)
        read = GRPC_METHODS[operation.path].answer
        if read is None:
            return QdrantMessage(body, request.collections, (), False, None, request.editor)
        return read(body, request)

    def fail(self, operation: Operation | None, transport: Transport, failure: Failure) -> FailureAnswer:
        """A failure as Qdrant would report it."""
        return form_failure(transport, failure)
