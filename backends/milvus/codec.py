"""Milvus's dialect: its operations, and its messages read and written."""

from __future__ import annotations

from collections.abc import Sequence

from ..dialect import NO_CONTEXT, Failure, FailureAnswer, Message, Operation, RequestContext, SchemaCodec, Transport
from ..reading import ReadCodec
from ..writing import WriteCodec
from .describe import MilvusSchemas
from .failure import form_failure
from .message import MilvusMessage
from .methods import GRPC_METHODS, REST_METHODS
from .reading import MilvusReading
from .rest import read_answer as read_rest_answer
from .writing import MilvusWriting


class MilvusDialect:
    """See dialect.Dialect."""

    kind = "milvus"
    operations: Sequence[Operation] = (
        *(method.operation for method in GRPC_METHODS.values()),
        *(method.operation for method in REST_METHODS.values()),
    )
    schemas: SchemaCodec | None = MilvusSchemas()
    reading: ReadCodec | None = MilvusReading()
    writing: WriteCodec | None = MilvusWriting()
    read_headers: Sequence[str] = ("dbname",)

    def find_operation(self, transport: Transport, method: str, path: str) -> Operation | None:
        """The operation a request line names; a query string is not looked at."""
        path = path.partition("?")[0]
        if transport == "grpc":
            found = GRPC_METHODS.get(path)
            return None if found is None else found.operation
        named = REST_METHODS.get((method, path.rstrip("/")))
        return None if named is None else named.operation

    def read_request(
        self, operation: Operation, path: str, body: bytes, context: RequestContext = NO_CONTEXT
    ) -> MilvusMessage:
        """The slots of a request. Raises MalformedError with the byte offset and, for gRPC, the field path."""
        if operation.transport == "rest":
            return REST_METHODS[operation.method, operation.path].request(body, context)
        return GRPC_METHODS[operation.path].request(body, context)

    def read_answer(self, operation: Operation, request: Message, body: bytes) -> MilvusMessage:
        """The slots of the answer to a request that `read_request` has read. Raises MalformedError."""
        if not isinstance(request, MilvusMessage):
            raise TypeError(f"{operation.name}: the request was read by another dialect ({type(request).__name__})")
        if operation.transport == "rest":
            return read_rest_answer(body, request)
        read = GRPC_METHODS[operation.path].answer
        if read is None:
            return MilvusMessage(body, request.collections, (), False, False, request.editor)
        return read(body, request)

    def fail(self, operation: Operation | None, transport: Transport, failure: Failure) -> FailureAnswer:
        """A failure as Milvus would report it."""
        return form_failure(operation, transport, failure)
