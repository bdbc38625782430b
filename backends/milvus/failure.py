"""Failures as Milvus reports them: in the `status` of a normal reply, which pymilvus raises at once.

Any other gRPC status than a few would make pymilvus try again, up to 75 times.
"""

from __future__ import annotations

import orjson

from ..dialect import Failure, FailureAnswer, Operation, Transport
from ..wire import encode_field, encode_varint
from .others import STATUS_REPLIES

# gRPC code -> Milvus's own code and its older one (common.ErrorCode), which clients before 2.4 read.
_INVALID = (1100, 5)  # parameter invalid; IllegalArgument
_CODES = {
    3: _INVALID,
    9: _INVALID,
    8: (1102, 5),  # parameter too large
    14: (2, 1),  # service unavailable; UnexpectedError
    4: (2, 1),
}
_INTERNAL = (5, 1)  # service internal error; UnexpectedError
_RETRIABLE = (14, 4)


def form_failure(operation: Operation | None, transport: Transport, failure: Failure) -> FailureAnswer:
    """A failure in Milvus's own form: HTTP 200 with a code and a message, over gRPC in the status of the reply.

    Where a method's reply is not known its status cannot be placed: that failure is a gRPC error.
    """
    code, older = _CODES.get(failure.grpc_code, _INTERNAL)
    if transport == "rest":
        body = orjson.dumps({"code": code, "message": failure.message})
        return FailureAnswer(200, 0, "", "application/json", body)
    if operation is None:
        return FailureAnswer(200, failure.grpc_code, failure.message, "application/grpc", b"")
    status = _encode_status(code, older, failure)
    reply = status if operation.name in STATUS_REPLIES else encode_field(1, status)
    return FailureAnswer(200, 0, "", "application/grpc", reply)


def _encode_status(code: int, older: int, failure: Failure) -> bytes:
    message = failure.message.encode("utf-8", "replace")
    status = _encode_number(1, older) + encode_field(2, message) + _encode_number(3, code)
    if failure.grpc_code in _RETRIABLE:
        status += _encode_number(4, 1)
    return status + encode_field(5, message)


def _encode_number(number: int, value: int) -> bytes:
    return encode_varint(number << 3) + encode_varint(value)
